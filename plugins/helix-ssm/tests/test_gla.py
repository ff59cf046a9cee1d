from __future__ import annotations

import numpy as np
import pytest
import torch

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.layers import LayerSuite
from helix_ssm.layers.gla import GLA


class TestGLA(LayerSuite):
    def make_layer(self):
        return GLA(self.d_model)


class TestGLAWithEveryOptionChanged(LayerSuite):
    def make_layer(self):
        return GLA(
            self.d_model,
            n_heads=2,
            expand_k=1.0,
            expand_v=1.5,
            gate_low_rank_dim=3,
            gate_logit_normalizer=1.0,
        )


def gla_by_the_paper(layer, x):
    """Section 4.4 of arXiv:2312.06635 for one sequence x (L, D), token by token and head by head."""
    w = {name: tensor.numpy() for name, tensor in layer.state_dict().items()}
    heads, outputs = layer.n_heads, []
    S = np.zeros((heads, layer.k_dim, layer.v_dim))
    for x_t in x:
        q, k, v = ((w[f"{name}_proj.weight"] @ x_t).reshape(heads, -1) for name in "qkv")
        logits = w["gk_proj.1.weight"] @ (w["gk_proj.0.weight"] @ x_t) + w["gk_proj.1.bias"]
        alpha = (1 / (1 + np.exp(-logits))) ** (1 / layer.gate_logit_normalizer)
        r = w["g_proj.weight"] @ x_t
        normed = []
        for h in range(heads):
            S[h] = alpha.reshape(heads, -1)[h][:, None] * S[h] + np.outer(k[h], v[h])
            o = q[h] @ S[h] / np.sqrt(layer.k_dim)
            normed.append(o / np.sqrt(np.mean(o**2) + 1e-5) * w["o_norm.weight"])
        outputs.append(w["out_proj.weight"] @ (np.concatenate(normed) * r / (1 + np.exp(-r))))
    return np.array(outputs)


def test_agrees_with_the_papers_recurrence():
    torch.manual_seed(0)
    layer = GLA(8, n_heads=2, expand_v=1.5).double()
    torch.nn.init.normal_(layer.o_norm.weight)
    x = torch.randn(2, 17, 8, dtype=torch.float64)
    expected = np.stack([gla_by_the_paper(layer, row.numpy()) for row in x])
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-10, atol=1e-12)


def test_the_normalizer_lengthens_the_memory():
    torch.manual_seed(0)
    layer = GLA(8)
    assert layer._log_gates(torch.zeros(1, 1, 8)).exp().min() > 0.9
    layer.gate_logit_normalizer = 1.0
    assert layer._log_gates(torch.zeros(1, 1, 8)).exp().max() < 0.7


def test_parameters_have_the_published_models_shapes():
    shapes = {name: tuple(p.shape) for name, p in GLA(32).named_parameters()}
    assert shapes == {
        "q_proj.weight": (16, 32),
        "k_proj.weight": (16, 32),
        "v_proj.weight": (32, 32),
        "gk_proj.0.weight": (16, 32),
        "gk_proj.1.weight": (16, 16),
        "gk_proj.1.bias": (16,),
        "g_proj.weight": (32, 32),
        "o_norm.weight": (8,),
        "out_proj.weight": (32, 32),
    }


def test_autocast_keeps_the_memory_in_float32():
    torch.manual_seed(0)
    layer, x = GLA(16), torch.randn(2, 9, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = layer.extend(x, layer.init_state(2))
    y.float().sum().backward()
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(y.float(), layer(x), rtol=0.1, atol=0.05)
    assert GLA(16).bfloat16().init_state(2).dtype == torch.float32


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"d_model": 0}, "d_model is 0"),
        ({"n_heads": 0}, "n_heads is 0"),
        ({"gate_low_rank_dim": 0}, "gate_low_rank_dim is 0"),
        ({"gate_logit_normalizer": 0.0}, "gate_logit_normalizer is 0.0, allowed is a number above 0"),
        (
            {"n_heads": 3},
            r"expand_k is 0.5, allowed is what makes d_model \* expand_k a multiple of n_heads=3",
        ),
        ({"expand_v": 0.25}, "expand_v is 0.25"),
        ({"expand_k": 0.3}, "expand_k is 0.3"),
    ],
)
def test_a_wrong_argument_is_named(wrong, message):
    with pytest.raises(ArgumentError, match=f"gla: {message}"):
        GLA(**{"d_model": 8, **wrong})
