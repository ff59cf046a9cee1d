"""The op `rwkv7`, beyond the suite of contracts."""

from __future__ import annotations

import pytest
import torch

from helix_kernel.errors import ArgumentError
from helix_kernel.ops import defined
from helix_ssm.ops import gated_delta_rule, gla, rwkv7
from helix_ssm.ops.chunked.backend import ChunkedBackend

NAMES = ("r", "w", "k", "v", "a", "b")


def arguments(batch_size=2, seq_len=100, n_heads=3, k_dim=8, v_dim=5, dtype=torch.float64):
    torch.manual_seed(seq_len)
    heads = (batch_size, seq_len, n_heads)
    r, k = torch.randn(2, *heads, k_dim, dtype=dtype)
    removal = torch.nn.functional.normalize(torch.randn(*heads, k_dim, dtype=dtype), dim=-1)
    w, rate = -0.05 * torch.rand(*heads, k_dim, dtype=dtype), torch.rand(*heads, k_dim, dtype=dtype)
    return r, w, k, torch.randn(*heads, v_dim, dtype=dtype), -removal, removal * rate


def chunked(*given):
    return ChunkedBackend.ops["rwkv7"](*given, None, None)


def test_step_is_the_papers_product_of_matrices():
    """The recurrence of section 4.1, whose state is (V, K), for one sequence and head."""
    given = arguments(batch_size=1, seq_len=70, n_heads=1)
    S, expected = torch.zeros(5, 8, dtype=torch.float64), []
    for r, w, k, v, a, b in zip(*(tensor[0, :, 0] for tensor in given), strict=True):
        S = S @ (torch.diag(w.exp()) + torch.outer(a, b)) + torch.outer(v, k)
        expected.append(S @ r)
    for o, state in (rwkv7(*given, return_final_state=True), chunked(*given)):
        torch.testing.assert_close(o[0, :, 0], torch.stack(expected), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(state[0, 0], S.T, rtol=1e-10, atol=1e-10)


def test_without_a_transition_it_is_gated_linear_attention():
    r, w, k, v, a, b = arguments()
    torch.testing.assert_close(rwkv7(r, w, k, v, 0 * a, b), gla(r, k, v, w, scale=1.0))


def test_with_one_key_and_one_decay_it_is_the_gated_delta_rule():
    r, w, _, v, a, _ = arguments()
    g, beta = w[..., 0], torch.rand(w.shape[:3], dtype=w.dtype)
    key, write = -a, beta.unsqueeze(-1)
    found = rwkv7(r, g.unsqueeze(-1).expand_as(w), key * write, v, a, key * write * g.exp().unsqueeze(-1))
    torch.testing.assert_close(found, gated_delta_rule(r, key, v, g, beta, scale=1.0))


def test_strong_decays_keep_the_precision_of_float32():
    """Neither an overflow, nor weak decays spoilt by strong ones before them."""
    r, w, k, v, a, b = arguments(seq_len=200)
    w = torch.where(torch.rand_like(w) < 0.3, -1e4, w)
    expected = rwkv7(r, w, k, v, a, b)
    found, _ = chunked(*(tensor.float() for tensor in (r, w, k, v, a, b)))
    assert (found - expected).abs().max() <= 2e-6 * expected.abs().max()


def test_chunks_need_no_reference():
    """An implementation may return NotImplemented, and the reference then serves, token by token."""
    for sample in defined()["rwkv7"].contract.samples():
        o, final_state = ChunkedBackend.ops["rwkv7"](*sample.args)
        assert ChunkedBackend.ops["rwkv7_backward"](o, final_state, *sample.args) is not NotImplemented


@pytest.mark.parametrize("name", ["w", "k", "a", "b"])
def test_a_wrong_shape_is_named(name):
    given = dict(zip(NAMES, arguments(seq_len=4), strict=True))
    given[name] = torch.ones(2, 4, 3, 7)
    with pytest.raises(ArgumentError, match=rf"{name} has shape \(2, 4, 3, 7\), allowed is \(2, 4, 3, 8\)"):
        rwkv7(**given)


def test_a_state_laid_out_as_in_the_paper_is_refused():
    given = dict(zip(NAMES, arguments(seq_len=4), strict=True))
    with pytest.raises(ArgumentError, match=r"initial_state has shape .* allowed is \(2, 3, 8, 5\)"):
        rwkv7(**given, initial_state=torch.ones(2, 3, 5, 8))
