"""A language model with a memory, by one that is simple enough to be known by heart."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.layers import LayerSuite
from helix_ssm.layers.language_model import LanguageModel
from helix_ssm.layers.mamba import Mamba

VOCAB_SIZE = 11


class Successors(nn.Module):
    """Remembers which id came last after each id; expects it again, as surely as 4 more in the logits."""

    def __init__(self, d_model, vocab_size):
        super().__init__()
        self.d_model = d_model
        self.register_buffer("after", torch.arange(vocab_size).roll(3))

    def init_state(self, batch_size):
        return torch.full((batch_size, 1), -1)

    def mix(self, logits, ids, features, state):
        assert features.shape == (*ids.shape, self.d_model)
        bonus = 4 * nn.functional.one_hot(self.after[ids], logits.shape[-1])
        read = torch.cat([state, ids], dim=1)
        again = (read[:, :-1] == ids)[..., None]  # and something that hangs on the state
        mixed = (logits + bonus * ~again).log_softmax(-1)
        if self.training:
            self.after = self.after.index_put((ids[:, :-1].flatten(),), ids[:, 1:].flatten())
        return mixed, read[:, -1:]


def make_model(**options):
    torch.manual_seed(0)
    return LanguageModel(8, n_layers=1, mixer=Mamba, vocab_size=VOCAB_SIZE, memory=Successors, **options)


class TestAModelWithAMemory(LayerSuite):
    def make_layer(self):
        return make_model().eval()

    def inputs(self, batch_size, seq_len, *, dtype, seed=0):
        return torch.randint(VOCAB_SIZE, (batch_size, seq_len), generator=torch.Generator().manual_seed(seed))

    def output_shape(self, x):
        return (*x.shape, VOCAB_SIZE)


@pytest.fixture
def ids():
    return torch.randint(VOCAB_SIZE, (3, 9), generator=torch.Generator().manual_seed(1))


def test_the_memory_has_its_say(ids):
    model = make_model().eval()
    plain = model.logits(model.features(ids)).log_softmax(-1)
    mixed = model(ids)
    assert not torch.allclose(mixed, plain)
    torch.testing.assert_close(mixed.exp().sum(-1), torch.ones(3, 9))


def test_it_remembers_in_training_only(ids):
    model = make_model().eval()
    before = model.memory.after.clone()
    model(ids)
    assert model.memory.after.equal(before)
    model.train()(ids)
    assert not model.memory.after.equal(before)
    other = make_model()
    other.load_state_dict(model.state_dict())
    assert other.memory.after.equal(model.memory.after)


def test_padded_rows_packed_rows_and_rows_alone_are_the_same(ids):
    model = make_model().eval()
    mask = torch.arange(9) >= torch.tensor([[0], [4], [7]])
    together = model(ids, mask=mask)
    for row, seen in enumerate(mask):
        torch.testing.assert_close(together[row, seen], model(ids[row : row + 1, seen])[0])
        assert not together[row, ~seen].any()


def test_prompts_of_different_lengths_go_on_from_their_own_states(ids):
    model = make_model().eval()
    mask = torch.arange(8) >= torch.tensor([[0], [4], [7]])
    logits, state = model.prefill(ids[:, :8], mask)
    after, _ = model.step(ids[:, 8], state)
    for row, seen in enumerate(mask):
        alone = model(torch.cat([ids[row, :8][seen], ids[row, 8:]])[None])[0]
        torch.testing.assert_close(logits[row], alone[-2])
        torch.testing.assert_close(after[row], alone[-1])


def test_gradients_reach_the_model_through_the_memory(ids):
    model = make_model()
    model(ids).logsumexp(-1).sum().backward()
    model.zero_grad()
    model(ids)[..., 0].sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.parameters())


def test_activation_checkpointing_changes_nothing_and_writes_once(ids):
    plain, sparing = make_model(), make_model()
    sparing.set_activation_checkpointing(enabled=True)
    for model in (plain, sparing):
        model(ids)[..., 0].sum().backward()
    assert plain.memory.after.equal(sparing.memory.after)
    for first, second in zip(plain.parameters(), sparing.parameters(), strict=True):
        torch.testing.assert_close(first.grad, second.grad)


@pytest.mark.parametrize(
    ("memory", "why"),
    [
        (lambda **_: nn.Identity(), r"Identity, which has no mix\(\)"),
        (lambda **_: SimpleNamespace(mix=0, init_state=0), "SimpleNamespace, which is no torch.nn.Module"),
    ],
)
def test_what_is_no_memory_for_language_models_is_refused(memory, why):
    with pytest.raises(ArgumentError, match=why + ".*such as hierarchy"):
        LanguageModel(8, n_layers=1, mixer=Mamba, memory=memory)
