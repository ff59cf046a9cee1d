from __future__ import annotations

import pytest
import torch
from transformers.models.qwen3_next import modeling_qwen3_next as qwen3_next

from helix_kernel.errors import ArgumentError
from helix_ssm.ops import gated_delta_rule
from helix_ssm.ops.chunked.backend import ChunkedBackend


def arguments(batch_size=2, seq_len=150, n_heads=3, k_dim=8, v_dim=5, dtype=torch.float32):
    torch.manual_seed(seq_len)
    heads = (batch_size, seq_len, n_heads)
    q, k = (torch.nn.functional.normalize(torch.randn(*heads, k_dim, dtype=dtype), dim=-1) for _ in "qk")
    g = -0.05 * torch.rand(heads, dtype=dtype)
    return q, k, torch.randn(*heads, v_dim, dtype=dtype), g, torch.rand(heads, dtype=dtype)


@pytest.mark.parametrize("theirs", ["torch_recurrent_gated_delta_rule", "torch_chunk_gated_delta_rule"])
def test_agrees_with_transformers(theirs):
    q, k, v, g, beta = arguments()
    state = torch.randn(2, 3, 8, 5)
    expected = getattr(qwen3_next, theirs)(
        q, k, v, g=g, beta=beta, initial_state=state, output_final_state=True
    )
    for implementation in (gated_delta_rule, chunked):
        found = implementation(q, k, v, g, beta, initial_state=state, return_final_state=True)
        torch.testing.assert_close(found, tuple(expected), rtol=1e-4, atol=1e-5)


def chunked(q, k, v, g, beta, *, scale=None, initial_state=None, return_final_state=True):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return ChunkedBackend.ops["gated_delta_rule"](q, k, v, g, beta, scale, initial_state, None)


def test_step_is_the_papers_product_of_matrices():
    """Section 3.1 of the paper, with I - beta k k^T written out."""
    q, k, v, g, beta = arguments(batch_size=1, seq_len=5, n_heads=1, dtype=torch.float64)
    S = torch.zeros(5, 8, dtype=torch.float64)
    for t in range(5):
        q_t, k_t, v_t = q[0, t, 0], k[0, t, 0], v[0, t, 0]
        keep = torch.eye(8, dtype=torch.float64) - beta[0, t, 0] * torch.outer(k_t, k_t)
        S = S @ (g[0, t, 0].exp() * keep) + beta[0, t, 0] * torch.outer(v_t, k_t)
        expected = S @ q_t * 8**-0.5
        found = gated_delta_rule(q[:, : t + 1], k[:, : t + 1], v[:, : t + 1], g[:, : t + 1], beta[:, : t + 1])
        torch.testing.assert_close(found[0, t, 0], expected, rtol=1e-12, atol=1e-12)


def test_a_full_write_is_read_back_and_replaces_what_the_key_held():
    key = torch.tensor([0.6, 0.8]).expand(1, 2, 1, 2)
    value = torch.tensor([[1.0, 2.0], [-3.0, 5.0]]).view(1, 2, 1, 2)
    ones = torch.ones(1, 2, 1)
    o = gated_delta_rule(key, key, value, 0 * ones, ones, scale=1.0)
    torch.testing.assert_close(o, value)


def test_strong_decays_keep_the_precision_of_float32():
    """A sum of decays of thousands must not spoil the weak decays behind it."""
    q, k, v, g, beta = arguments(seq_len=130, dtype=torch.float64)
    g = torch.where(torch.rand_like(g) < 0.3, -1e4, 0.01 * g)
    expected = gated_delta_rule(q, k, v, g, beta)
    found, _ = chunked(q.float(), k.float(), v.float(), g.float(), beta.float())
    assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_chunks_need_no_reference():
    """An implementation may return NotImplemented, and the reference then serves, token by token."""
    for sample in gated_delta_rule_samples():
        o, final_state = ChunkedBackend.ops["gated_delta_rule"](*sample.args)
        found = ChunkedBackend.ops["gated_delta_rule_backward"](o, final_state, *sample.args)
        assert found is not NotImplemented


def gated_delta_rule_samples():
    from helix_kernel.ops import defined

    return defined()["gated_delta_rule"].contract.samples()


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("k", torch.ones(2, 4, 3, 7), r"k has shape \(2, 4, 3, 7\), allowed is \(2, 4, 3, 8\)"),
        ("v", torch.ones(2, 4, 2, 5), r"v has shape \(2, 4, 2, 5\), allowed is \(2, 4, 3, any\)"),
        ("g", torch.ones(2, 4, 3, 8), r"g has shape \(2, 4, 3, 8\), allowed is \(2, 4, 3\)"),
        ("beta", torch.ones(2, 4), r"beta has shape"),
        ("initial_state", torch.ones(2, 3, 5, 8), r"initial_state has shape .* allowed is \(2, 3, 8, 5\)"),
    ],
)
def test_a_wrong_shape_is_named(name, wrong, message):
    given = dict(zip(("q", "k", "v", "g", "beta"), arguments(seq_len=4), strict=True))
    with pytest.raises(ArgumentError, match=message):
        gated_delta_rule(**{**given, name: wrong})
