"""The op `gla`, beyond the suite of contracts."""

from __future__ import annotations

import pytest
import torch

from helix_kernel.errors import ArgumentError
from helix_kernel.ops import defined
from helix_ssm.ops import gla
from helix_ssm.ops.chunked.backend import ChunkedBackend
from helix_ssm.ops.chunked.decayed import decayed_products


def arguments(batch_size=2, seq_len=150, n_heads=3, k_dim=8, v_dim=5, dtype=torch.float64):
    torch.manual_seed(seq_len)
    heads = (batch_size, seq_len, n_heads)
    q, k = torch.randn(2, *heads, k_dim, dtype=dtype)
    return q, k, torch.randn(*heads, v_dim, dtype=dtype), -0.05 * torch.rand(*heads, k_dim, dtype=dtype)


def chunked(q, k, v, g):
    return ChunkedBackend.ops["gla"](q, k, v, g, q.shape[-1] ** -0.5, None, None)


def test_is_attention_whose_scores_decay():
    """The parallel form of section 4.1, with every product of gates in the open."""
    q, k, v, g = arguments()
    sums = g.cumsum(1)
    between = (sums.unsqueeze(2) - sums.unsqueeze(1)).exp()  # (B, i, j, H, K), right where j <= i
    scores = torch.einsum("bihk,bjhk,bijhk->bhij", q, k, between).tril() * 8**-0.5
    expected = torch.einsum("bhij,bjhv->bihv", scores, v)
    torch.testing.assert_close(gla(q, k, v, g), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(chunked(q, k, v, g)[0], expected, rtol=1e-10, atol=1e-10)


def test_gates_of_one_make_it_linear_attention():
    q, k, v, g = arguments()
    scores = torch.einsum("bihk,bjhk->bhij", q, k).tril()
    expected = 8**-0.5 * torch.einsum("bhij,bjhv->bihv", scores, v)
    torch.testing.assert_close(gla(q, k, v, 0 * g), expected, rtol=1e-10, atol=1e-10)


def test_strong_gates_keep_the_precision_of_float32():
    """Neither an overflow, nor weak gates spoilt by strong ones before them."""
    q, k, v, g = arguments(seq_len=200)
    g = torch.where(torch.rand_like(g) < 0.3, -1e4, 0.01 * g)
    expected = gla(q, k, v, g)
    found, _ = chunked(*(tensor.float() for tensor in (q, k, v, g)))
    assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()


@pytest.mark.parametrize("length", [1, 2, 8])
def test_decayed_products_are_their_definition(length):
    torch.manual_seed(0)
    x, y = torch.randn(5, length, 2, 4), torch.randn(5, length, 3, 4)
    gates = torch.rand(5, length, 4)
    found = decayed_products(x, y, gates)
    expected = torch.zeros(5, length, 2, length, 3)
    for i in range(length):
        for j in range(i + 1):
            decay = gates[:, j + 1 : i + 1].prod(1)
            expected[:, i, :, j] = torch.einsum("brk,bsk,bk->brs", x[:, i], y[:, j], decay)
    torch.testing.assert_close(found.products, expected.flatten(3).flatten(1, 2))
    torch.testing.assert_close(found.from_start, gates.cumprod(1))
    to_end = torch.stack([gates[:, j + 1 :].prod(1) for j in range(length)], 1)
    torch.testing.assert_close(found.to_end, to_end)


def test_chunks_need_no_reference():
    """An implementation may return NotImplemented, and the reference then serves, token by token."""
    for sample in defined()["gla"].contract.samples():
        o, final_state = ChunkedBackend.ops["gla"](*sample.args)
        assert ChunkedBackend.ops["gla_backward"](o, final_state, *sample.args) is not NotImplemented


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("k", torch.ones(2, 4, 3, 7), r"k has shape \(2, 4, 3, 7\), allowed is \(2, 4, 3, 8\)"),
        ("v", torch.ones(2, 4, 2, 5), r"v has shape \(2, 4, 2, 5\), allowed is \(2, 4, 3, any\)"),
        ("g", torch.ones(2, 4, 3), r"g has shape \(2, 4, 3\), allowed is \(2, 4, 3, 8\)"),
        ("initial_state", torch.ones(2, 3, 5, 8), r"initial_state has shape .* allowed is \(2, 3, 8, 5\)"),
    ],
)
def test_a_wrong_shape_is_named(name, wrong, message):
    given = dict(zip(("q", "k", "v", "g"), arguments(seq_len=4), strict=True))
    with pytest.raises(ArgumentError, match=message):
        gla(**{**given, name: wrong})
