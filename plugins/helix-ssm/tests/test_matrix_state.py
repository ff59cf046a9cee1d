from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from helix_kernel.ops import defined
from helix_ssm import ops
from helix_ssm.ops._matrix_samples import CASES
from helix_ssm.ops._matrix_state import recur
from helix_ssm.ops.chunked.matrix_state import in_chunks

OPS = ["gated_delta_rule", "gla", "rwkv7"]


def draw(*shape):
    return torch.randn(shape, dtype=torch.float64)


def remember(state, q, k, v):
    """Keep the sum of all products of keys and values."""
    state = state + k.unsqueeze(-1) * v.unsqueeze(-2)
    return torch.einsum("bhk,bhkv->bhv", q, state), state


def remember_chunks(state, q, k, v):
    """The same for chunks (B, H, n, C, ...), as sums over all tokens up to each."""
    q, k, v = (tensor.flatten(2, 3) for tensor in (q, k, v))
    states = state.unsqueeze(2) + (k.unsqueeze(-1) * v.unsqueeze(-2)).cumsum(2)
    o = torch.einsum("bhtk,bhtkv->bhtv", q, states)
    return o.unflatten(2, (-1, min(4, o.shape[2]))), states[:, :, -1]


def one_by_one(tokens, initial_state, cu_seqlens):
    return recur(remember, tokens, initial_state, cu_seqlens)


def four_by_four(tokens, initial_state, cu_seqlens):
    return in_chunks(remember_chunks, remember, tokens, initial_state, cu_seqlens, longest=4)


@pytest.mark.parametrize("run", [one_by_one, four_by_four])
@pytest.mark.parametrize("seq_len", [0, 1, 4, 11])
def test_a_state_goes_from_token_to_token(run, seq_len):
    q, k, v, before = draw(2, seq_len, 3, 4), draw(2, seq_len, 3, 4), draw(2, seq_len, 3, 5), draw(2, 3, 4, 5)
    written = torch.einsum("blhk,blhv->blhkv", k, v)
    o, final_state = run((q, k, v), before, None)
    expected = torch.einsum("blhk,blhkv->blhv", q, before.unsqueeze(1) + written.cumsum(1))
    torch.testing.assert_close(o, expected)
    torch.testing.assert_close(final_state, before + written.sum(1))
    torch.testing.assert_close(run((q, k, v), None, None)[1], written.sum(1))


@pytest.mark.parametrize("run", [one_by_one, four_by_four])
@pytest.mark.parametrize("bounds", [[0, 1, 2, 3], [0, 5, 5, 11], [0, 0]])
def test_packed_sequences_are_as_if_each_came_alone(run, bounds):
    n, seq_len = len(bounds) - 1, bounds[-1]
    tokens, before = (
        (draw(1, seq_len, 2, 3), draw(1, seq_len, 2, 3), draw(1, seq_len, 2, 4)),
        draw(n, 2, 3, 4),
    )
    o, final_state = run(tokens, before, torch.tensor(bounds))
    for row, (start, end) in enumerate(pairwise(bounds)):
        alone = run([tensor[:, start:end] for tensor in tokens], before[row : row + 1], None)
        torch.testing.assert_close((o[:, start:end], final_state[row : row + 1]), alone)


def test_one_token_is_no_chunk():
    def refuse(*_chunks):
        pytest.fail("one token was run as a chunk")

    tokens = draw(2, 1, 3, 4), draw(2, 1, 3, 4), draw(2, 1, 3, 5)
    found = in_chunks(refuse, remember, tokens, None, None, longest=4)
    torch.testing.assert_close(found, recur(remember, tokens, None, None))


@pytest.mark.parametrize("name", OPS)
def test_samples_cover_every_case(name):
    assert name in ops.__all__
    samples = {sample.name: sample.args for sample in defined()[name].contract.samples()}
    assert set(samples) >= set(CASES)
    emptied = [tensor for tensor in samples["empties-the-memory"] if isinstance(tensor, torch.Tensor)]
    assert any(tensor.isneginf().any() for tensor in emptied)
    assert not any(tensor.isneginf().all() for tensor in emptied)
