"""Training in chunks: the gradients are those of whole sequences, and only one chunk is held at a time."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import toy_lm

from helix_kernel.errors import ArgumentError
from helix_train.losses.classification import CrossEntropy
from helix_train.objective import Examples, Objective
from helix_train.streaming import backward_in_chunks

B, L = 3, 23


class Stateful(toy_lm.Model):
    """A state of many kinds: learned, counted, left as it is, absent, and a view of what it was made from."""

    def __init__(self, dropout=0.0):
        super().__init__(dropout=dropout, vocab_size=5)
        self.first = torch.nn.Parameter(torch.randn(8))
        self.rate = torch.nn.Parameter(torch.tensor(0.3))
        self.double()

    def init_state(self, batch_size, *, device=None, dtype=None):
        counts = torch.zeros(batch_size, dtype=torch.int64, device=device)
        return {"sums": self.first.expand(batch_size, -1), "seen": counts, "none": None}

    def extend(self, ids, state):
        positions = state["seen"][:, None] + torch.arange(ids.shape[1], device=ids.device)
        terms = self.embedding(ids) * torch.cos(self.rate * positions)[..., None]
        sums = state["sums"][:, None] + terms.cumsum(dim=1)
        end = {**state, "sums": sums[:, -1], "seen": state["seen"] + ids.shape[1]}
        return self.head(self.dropout(torch.tanh(sums))), end


class Auxiliary(Stateful):
    """Adds a part to the loss, of what it ran last."""

    def extend(self, ids, state):
        logits, state = super().extend(ids, state)
        self.spread = logits.square().mean()
        return logits, state

    def auxiliary_loss(self):
        return 0.1 * self.spread


def made(cls=Stateful, **options):
    torch.manual_seed(0)
    return cls(**options)


def examples(*, masked=False):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, (B, L + 1), generator=generator)
    mask = torch.rand(B, L, generator=generator) < 0.4
    mask[:, 5:12] = False  # a whole chunk of which nothing counts
    return Examples(inputs=ids[:, :-1], targets=ids[:, 1:], mask=mask if masked else None)


def gradients(model, run, loss=None):
    """Return the losses and the gradients by name that a way to run backward leaves."""
    model.zero_grad()
    losses = run(Objective(model=model, loss=loss or CrossEntropy()), examples=examples())
    return losses, {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def assert_close(found, expected, tolerance=1e-10):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(found[name], gradient, rtol=tolerance, atol=tolerance, msg=name)


def in_chunks(objective, examples, *, chunk_len=4, gradient="exact", **options):
    return backward_in_chunks(objective, examples, chunk_len=chunk_len, gradient=gradient, **options)


@pytest.mark.parametrize("chunk_len", [1, 2, 7, L - 1, L, L + 3])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("masked", [False, True])
def test_exact_gradients_are_those_of_whole_sequences(chunk_len, reduction, masked):
    model, loss, batch = made(), CrossEntropy(reduction=reduction), examples(masked=masked)

    def whole(objective, examples):
        return objective.backward(batch, weight=0.3)

    def chunked(objective, examples):
        return in_chunks(objective, batch, chunk_len=chunk_len, weight=0.3)

    expected_loss, expected = gradients(model, whole, loss)
    found_loss, found = gradients(model, chunked, loss)
    assert_close(found, expected)
    torch.testing.assert_close(found_loss.task, expected_loss.task, rtol=1e-12, atol=0)
    assert not found_loss.task.requires_grad


@pytest.mark.parametrize("chunk_len", [1, 5, L])
def test_truncated_gradients_stop_at_the_borders(chunk_len):
    model, batch = made(), examples()

    def by_hand(objective, examples):
        """One graph over the whole, cut by hand where a chunk begins."""
        terms = model.embedding(batch.inputs) * torch.cos(model.rate * torch.arange(L))[:, None]
        sums, outputs = model.first.expand(B, -1), []
        for t in range(L):
            if t and t % chunk_len == 0:
                sums = sums.detach()
            sums = sums + terms[:, t]
            outputs.append(model.head(torch.tanh(sums)))
        loss = objective.loss(torch.stack(outputs, dim=1), batch.targets)
        loss.backward()
        return loss

    expected_loss, expected = gradients(model, by_hand)
    losses, found = gradients(model, partial(in_chunks, chunk_len=chunk_len, gradient="truncated"))
    assert_close(found, expected)
    torch.testing.assert_close(losses.task, expected_loss.detach(), rtol=1e-12, atol=0)


def test_chunks_that_are_run_again_drop_the_same_elements():
    model, batch = made(dropout=0.5).train(), examples()

    def one_graph(objective, examples):
        state, losses = model.init_state(B), []
        for inputs, targets in zip(batch.inputs.split(4, dim=1), batch.targets.split(4, dim=1), strict=True):
            logits, state = model.extend(inputs, state)
            losses.append(objective.loss(logits, targets) * inputs.shape[1] / L)
        torch.stack(losses).sum().backward()

    torch.manual_seed(5)
    _, expected = gradients(model, one_graph)
    drawn_after = torch.rand(3)
    torch.manual_seed(5)
    _, found = gradients(model, in_chunks)
    assert_close(found, expected)
    assert torch.equal(torch.rand(3), drawn_after)


@pytest.mark.parametrize("gradient", ["exact", "truncated"])
def test_the_auxiliary_loss_of_each_chunk_counts_by_its_share(gradient):
    batch, losses = examples(), {}
    for cls in (Stateful, Auxiliary):
        losses[cls], _ = gradients(made(cls), partial(in_chunks, chunk_len=9, gradient=gradient))
    model, expected = made(Auxiliary), 0.0
    state = model.init_state(B)
    for inputs in batch.inputs.split(9, dim=1):
        _, state = model.extend(inputs, state)
        expected += model.auxiliary_loss().item() * inputs.shape[1] / L
    assert losses[Stateful].auxiliary is None
    assert losses[Auxiliary].task == losses[Stateful].task
    assert float(losses[Auxiliary].auxiliary) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("gradient", ["exact", "truncated"])
def test_one_chunks_activations_are_held_however_many_there_are(gradient):
    """Counts the bytes that autograd keeps for backward: a peak that grew with L would show here."""

    def peak(n_chunks):
        model, held = made(), Held()
        ids = torch.zeros(B, 8 * n_chunks, dtype=torch.int64)
        objective = Objective(model=model, loss=CrossEntropy())
        with torch.autograd.graph.saved_tensors_hooks(held.pack, held.unpack):
            in_chunks(objective, Examples(inputs=ids, targets=ids), chunk_len=8, gradient=gradient)
        assert held.now == 0
        return held.peak

    assert peak(2) == peak(16) > 0


class Held:
    """Adds up the bytes of the tensors that graphs hold for backward."""

    def __init__(self):
        self.now = self.peak = 0

    def pack(self, tensor):
        self.now += tensor.nbytes
        self.peak = max(self.peak, self.now)
        return Kept(self, tensor)

    def unpack(self, kept):
        return kept.tensor


class Kept:
    def __init__(self, held, tensor):
        self.held, self.tensor = held, tensor

    def __del__(self):
        self.held.now -= self.tensor.nbytes


def test_a_state_at_a_border_keeps_no_outputs_in_memory(monkeypatch):
    """`Stateful` returns a view of all its sums; what is kept for later is the view's own bytes."""
    model, sizes = made(), []
    extend = model.extend

    def watched(ids, state):
        sizes.append(state["sums"].untyped_storage().nbytes())
        return extend(ids, state)

    monkeypatch.setattr(model, "extend", watched)
    gradients(model, in_chunks)
    kept = sizes[1:-1]  # but for the model's own first state
    assert set(kept) == {B * 8 * 8}


def test_the_model_runs_in_the_precision_that_is_asked_for_and_its_loss_in_float32():
    torch.manual_seed(0)
    model, seen = toy_lm.Model(vocab_size=5), set()
    model.head.register_forward_hook(lambda module, inputs, logits: seen.add(logits.dtype))
    precision = partial(torch.autocast, "cpu", dtype=torch.bfloat16)
    objective = Objective(model=model, loss=CrossEntropy(), precision=precision)
    losses = in_chunks(objective, examples())
    assert seen == {torch.bfloat16}
    assert losses.task.dtype == torch.float32
    assert all(parameter.grad.abs().max() > 0 for parameter in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk_len": 0}, "trainer.chunk_len is 0, allowed is >= 1"),
        ({"gradient": "exakt"}, r"trainer.gradient is 'exakt'.*Did you mean 'exact'"),
    ],
)
def test_wrong_arguments_are_said(options, message):
    with pytest.raises(ArgumentError, match=message):
        in_chunks(Objective(model=made(), loss=CrossEntropy()), examples(), **options)


def test_a_model_without_a_state_is_refused_with_the_way_out():
    with pytest.raises(ArgumentError, match=r"Linear has no init_state\(\).*trainer.chunk_len=0"):
        in_chunks(Objective(model=torch.nn.Linear(2, 2), loss=CrossEntropy()), examples())


@pytest.mark.parametrize("shapes", [{"targets": (B,)}, {"targets": (B, L), "mask": (B, 1)}])
def test_targets_and_mask_must_have_the_inputs_time_axis(shapes):
    tensors = {name: torch.ones(shape, dtype=torch.int64) for name, shape in shapes.items()}
    batch = Examples(inputs=torch.ones(B, L, dtype=torch.int64), **tensors)
    with pytest.raises(ArgumentError, match=r"have shape \(3,( 1)?\) and inputs \(3, 23\)"):
        in_chunks(Objective(model=made(), loss=CrossEntropy()), batch)


def test_padded_batches_are_refused():
    batch = examples()
    padded = Examples(inputs=batch.inputs, targets=batch.targets, input_mask=torch.ones(B, L) > 0)
    with pytest.raises(ArgumentError, match=r"padded batches \(input_mask\) cannot be cut in chunks"):
        in_chunks(Objective(model=made(), loss=CrossEntropy()), padded)
