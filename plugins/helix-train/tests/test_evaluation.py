"""Bits per byte: every byte but the first counts once, and the number is the direct one."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import toy_lm
from hypothesis import given
from hypothesis import strategies as st

from helix_kernel.errors import ArgumentError
from helix_train.evaluation import (
    Evaluation,
    _batches,
    evaluate,
    evaluate_batches,
    evaluate_dataset,
    evaluate_stream,
)


class Watcher(torch.nn.Module):
    """Gives byte v the probability ∝ e^(weight · v), and remembers what it was shown."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.linspace(0, 4, 256, dtype=torch.float64))
        self.shapes, self.modes = [], []

    def forward(self, ids):
        self.shapes.append(tuple(ids.shape))
        self.modes.append((self.training, torch.is_inference_mode_enabled()))
        return self.weight.expand(*ids.shape, 256)

    def init_state(self, batch_size, *, device=None):
        return ()

    def extend(self, ids, state):
        return self(ids), state


def held_out(n_bytes):
    return np.random.default_rng(n_bytes).integers(0, 256, n_bytes).astype(np.uint8)


sizes = st.tuples(st.integers(2, 70), st.integers(1, 20), st.integers(1, 5))


@given(sizes)
def test_every_byte_but_the_first_counts_exactly_once(size):
    n_bytes, seq_len, batch_size = size
    model, data = Watcher(), held_out(n_bytes)
    found = evaluate(model, data, seq_len=seq_len, batch_size=batch_size)
    # The watcher's loss of a byte depends on the byte alone: left out or twice, the mean would differ.
    losses = -torch.log_softmax(model.weight.detach().float(), dim=0)[torch.from_numpy(data[1:].astype(int))]
    assert found.n_bytes == n_bytes - 1
    assert found.loss == pytest.approx(float(losses.double().mean()), rel=1e-6)
    assert all(rows <= batch_size and length <= seq_len for rows, length in model.shapes)


@given(sizes)
def test_each_byte_is_predicted_from_at_least_half_a_window(size):
    n_bytes, seq_len, batch_size = size
    numbered = np.arange(n_bytes).astype(np.uint8)
    half = min(seq_len, n_bytes - 1) // 2
    for ids, targets, scored in _batches(numbered, seq_len, batch_size):
        assert torch.equal(targets, ids + 1)
        context = targets - ids[:, :1]
        assert (context >= targets.clamp(max=half))[scored].all()


def test_a_single_window_equals_a_forward_pass():
    torch.manual_seed(0)
    model, data = toy_lm.Model(), held_out(30)
    ids = torch.from_numpy(data.astype(int))
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(model(ids[None, :-1])[0], ids[1:])
    assert evaluate(model, data, seq_len=64, batch_size=2).loss == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("chunk_len", [1, 7, 28, 29, 30, 100])
def test_a_stream_predicts_each_byte_from_everything_before_it(chunk_len):
    torch.manual_seed(0)
    model, data = toy_lm.Model(), held_out(30)
    expected = evaluate(model, data, seq_len=29, batch_size=1)
    found = evaluate_stream(model, data, chunk_len=chunk_len)
    assert found.n_bytes == expected.n_bytes == 29
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    # A window shorter than the text forgets, so that the two could be told apart.
    assert evaluate(model, data, seq_len=6, batch_size=1).loss != pytest.approx(expected.loss, rel=1e-3)


def test_a_stream_holds_no_more_than_a_chunk():
    model, lengths = toy_lm.Model(), []
    model.head.register_forward_hook(lambda module, inputs, logits: lengths.append(logits.shape[:2]))
    evaluate_stream(model, held_out(30), chunk_len=12)
    assert lengths == [(1, 12), (1, 12), (1, 5)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("way", [evaluate, evaluate_stream])
def test_the_model_is_in_evaluation_mode_meanwhile_and_not_after(way, training):
    model = Watcher().train(training)
    sizes = {"seq_len": 8, "batch_size": 2} if way is evaluate else {"chunk_len": 8}
    way(model, held_out(40), **sizes)
    assert set(model.modes) == {(False, True)}
    assert model.training == training


def test_read_only_bytes_are_taken_without_a_copy(recwarn):
    data = held_out(40)
    data.flags.writeable = False
    evaluate(Watcher(), data, seq_len=8, batch_size=2)
    assert not recwarn


def test_bits_of_tokens_are_shared_out_among_their_bytes():
    found = Evaluation(3 * math.log(2), 50, 0.25)
    assert found.n_bytes == 200
    assert found.bits_per_byte == pytest.approx(0.75)


@pytest.mark.parametrize("chunk_len", [0, 7])
def test_a_datasets_tokens_per_byte_count(chunk_len):
    torch.manual_seed(0)
    model, dataset = toy_lm.Model(), toy_lm.Data()
    plain = evaluate_dataset(model, dataset, chunk_len=chunk_len)
    dataset.tokens_per_byte = 0.5
    halved = evaluate_dataset(model, dataset, chunk_len=chunk_len)
    assert (halved.loss, halved.n_targets) == (plain.loss, plain.n_targets)
    assert halved.bits_per_byte == plain.bits_per_byte / 2


def test_bits_are_nats_over_log_two():
    assert Evaluation(3 * math.log(2), 5).bits_per_byte == pytest.approx(3)


@pytest.mark.parametrize(
    ("n_bytes", "seq_len", "batch_size", "message"),
    [
        (0, 8, 2, "held_out has 0 tokens"),
        (1, 8, 2, r"held_out has 1 tokens.*data\.validation_fraction"),
        (9, 0, 2, "seq_len is 0, allowed is >= 1"),
        (9, 8, -1, "batch_size is -1, allowed is >= 1"),
    ],
)
def test_what_cannot_be_evaluated_is_said(n_bytes, seq_len, batch_size, message):
    with pytest.raises(ArgumentError, match=message):
        evaluate(Watcher(), held_out(n_bytes), seq_len=seq_len, batch_size=batch_size)


@pytest.mark.parametrize(
    ("model", "n_bytes", "chunk_len", "message"),
    [
        (Watcher, 1, 8, "held_out has 1 tokens"),
        (Watcher, 9, 0, "chunk_len is 0, allowed is >= 1"),
        (toy_lm.Stateless, 9, 8, r"Stateless has no init_state\(\).*windows \(without --stream\)"),
    ],
)
def test_what_cannot_be_streamed_is_said(model, n_bytes, chunk_len, message):
    with pytest.raises(ArgumentError, match=message):
        evaluate_stream(model(), held_out(n_bytes), chunk_len=chunk_len)


class Batches:
    """A dataset that says itself what is measured, and what counts of it."""

    def __init__(self, *, masked):
        generator = torch.Generator().manual_seed(0)
        self.made = []
        for n_rows, length in [(3, 8), (1, 5)]:
            ids = torch.randint(256, (2, n_rows, length), generator=generator)
            batch = SimpleNamespace(inputs=ids[0], targets=ids[1])
            if masked:
                batch.mask = torch.rand(n_rows, length, generator=generator) < 0.3
            self.made.append(batch)

    def evaluation_batches(self):
        yield from self.made


@pytest.mark.parametrize("masked", [False, True])
def test_a_datasets_own_batches_count_where_the_mask_says_each_target_alike(masked):
    torch.manual_seed(0)
    model, dataset = toy_lm.Model(), Batches(masked=masked)
    losses = []
    with torch.no_grad():
        for batch in dataset.made:
            elements = torch.nn.functional.cross_entropy(
                model(batch.inputs).transpose(1, 2), batch.targets, reduction="none"
            )
            losses.append(elements[batch.mask] if masked else elements.flatten())
    expected = torch.cat(losses)
    found = evaluate_dataset(model, dataset)
    assert found.n_bytes == len(expected)
    assert found.loss == pytest.approx(float(expected.mean()), rel=1e-6)


class Rows(torch.nn.Module):
    """Puts each row in the class of its largest byte, padding apart, and is the surer the larger it is."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, ids, *, mask):
        largest = ids.masked_fill(~mask, -1).amax(dim=1)
        return self.weight * torch.nn.functional.one_hot(largest, 5).float() * largest[:, None]


def test_classes_of_padded_rows_have_an_accuracy_and_no_bits():
    ids = torch.tensor([[1, 2, 4], [3, 1, 0], [2, 4, 4], [1, 0, 0]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0], [1, 1, 1]], dtype=torch.bool)
    targets = torch.tensor([2, 3, 2, 4])
    rows = ((ids[:3], mask[:3], targets[:3]), (ids[3:], mask[3:], targets[3:]))
    batches = [SimpleNamespace(inputs=i, input_mask=m, targets=t) for i, m, t in rows]
    dataset = SimpleNamespace(evaluation_batches=lambda: batches, tokens_per_byte=None)
    found = evaluate_dataset(Rows(), dataset)
    expected = torch.nn.functional.cross_entropy(Rows()(ids, mask=mask), targets)
    assert found.loss == pytest.approx(float(expected.detach()), rel=1e-6)
    assert (found.accuracy, found.n_targets) == (0.75, 4)
    assert found.bits_per_byte is None
    assert found.n_bytes is None


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Evaluation(math.log(2), 5), "1.0000 bits per byte"),
        (Evaluation(0.25, 5, None), "loss 0.2500"),
        (Evaluation(0.25, 5, None, 0.5), "loss 0.2500, accuracy 50.0%"),
    ],
)
def test_it_says_what_a_run_is_followed_by(found, words):
    assert str(found) == words


def test_batches_of_a_dataset_are_no_text_to_stream():
    with pytest.raises(ArgumentError, match=r"Batches brings batches of its own.*leave --stream out"):
        evaluate_dataset(toy_lm.Model(), Batches(masked=True), chunk_len=4)


def test_no_batches_are_no_evaluation():
    dataset = Batches(masked=True)
    dataset.made.clear()
    assert evaluate_dataset(Watcher(), dataset) is None


def test_a_dataset_that_holds_nothing_out_has_no_evaluation():
    assert evaluate_dataset(Watcher(), toy_lm.Data(n_held_out=1)) is None


class TestWatching:
    """Whoever watches hears of each batch before it is measured, and can end it all."""

    DATA = np.arange(100, dtype=np.uint8)

    @pytest.fixture
    def model(self):
        return toy_lm.Model()

    def test_of_windows(self, model):
        heard = []
        evaluate(model, self.DATA, seq_len=10, batch_size=4, watch=lambda *told: heard.append(told))
        assert heard == [(number, len(heard)) for number in range(len(heard))]
        assert len(heard) == 5

    def test_of_chunks(self, model):
        heard = []
        evaluate_stream(model, self.DATA, chunk_len=40, watch=lambda *told: heard.append(told))
        assert heard == [(0, 3), (1, 3), (2, 3)]

    @pytest.mark.parametrize(("form", "total"), [(list, 2), (iter, None)])
    def test_of_given_batches_with_their_number_where_it_is_known(self, model, form, total):
        batches = [SimpleNamespace(inputs=torch.zeros(1, 3).long(), targets=torch.zeros(1, 3).long())] * 2
        heard = []
        evaluate_batches(model, form(batches), watch=lambda *told: heard.append(told))
        assert heard == [(0, total), (1, total)]

    def test_what_it_raises_ends_the_measuring_and_leaves_the_model_training(self, model):
        def end(done, total):
            if done == 1:
                raise KeyError("enough")

        model.train()
        with pytest.raises(KeyError, match="enough"):
            evaluate(model, self.DATA, seq_len=10, batch_size=4, watch=end)
        assert model.training


class Twice(torch.nn.Module):
    """Doubles the part `x`, and counts rows."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(2.0))

    def forward(self, inputs):
        return self.weight * inputs["x"]

    def measures(self, batches):
        return {"n_rows": float(sum(len(inputs["x"]) for inputs in batches))}


def parts(x, targets, mask=None):
    return SimpleNamespace(inputs={"x": torch.tensor(x)}, targets=torch.tensor(targets), mask=mask)


def test_floating_targets_are_measured_by_the_loss():
    batches = [parts([1.0, 2.0], [2.0, 5.0]), parts([3.0], [9.0])]
    found = evaluate_batches(Twice(), batches, loss=torch.nn.L1Loss())
    assert (found.loss, found.n_targets) == ((0 + 1 + 3) / 3, 3)
    assert found.accuracy is None


def test_floating_targets_without_a_loss_are_refused():
    with pytest.raises(ArgumentError, match="targets are floating, and no loss is given"):
        evaluate_batches(Twice(), [parts([1.0], [2.0])])


def test_a_model_measures_what_it_likes_of_the_held_out_batches():
    data = SimpleNamespace(
        evaluation_batches=lambda: iter([parts([1.0, 2.0], [2.0, 4.0]), parts([3.0], [6.0])]),
        tokens_per_byte=None,
    )
    found = evaluate_dataset(Twice(), data, loss=torch.nn.L1Loss())
    assert found.metrics == {"n_rows": 3.0}
    assert found.loss == 0
