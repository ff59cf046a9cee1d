from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.cache_utils import DynamicCache
from transformers.models.mamba2.configuration_mamba2 import Mamba2Config
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.layers import LayerSuite
from helix_ssm.layers.mamba2 import Mamba2


class TestMamba2(LayerSuite):
    def make_layer(self):
        return Mamba2(self.d_model)


class TestMamba2WithEveryOptionChanged(LayerSuite):
    def make_layer(self):
        return Mamba2(
            self.d_model,
            d_state=3,
            d_conv=2,
            expand=3,
            head_dim=4,
            n_groups=2,
            dt_max=0.5,
            dt_init_floor=0.01,
            dt_limit=(0.02, 0.4),
            A_init_range=(0.5, 2.0),
            conv_bias=False,
            bias=True,
            norm_eps=1e-3,
        )


def silu(x):
    return x / (1 + np.exp(-x))


def mamba2_by_the_paper(weights, x, n_heads, n_groups):
    """Sections 5 to 7 of arXiv:2405.21060 for one sequence x (L, D), token by token."""
    w = {name: tensor.numpy() for name, tensor in weights.items()}
    d_inner, d_mixed = w["norm.weight"].shape[0], w["conv1d.weight"].shape[0]
    head_dim, d_state = d_inner // n_heads, (d_mixed - d_inner) // 2 // n_groups
    past = np.zeros((w["conv1d.weight"].shape[-1], d_mixed))
    h = np.zeros((n_heads, head_dim, d_state))
    outputs = []
    for x_t in x:
        z, mixed, dt = np.split(w["in_proj.weight"] @ x_t, [d_inner, d_inner + d_mixed])
        past = np.vstack([past[1:], mixed])
        mixed = silu((w["conv1d.weight"][:, 0].T * past).sum(0) + w["conv1d.bias"])
        u, B, C = np.split(mixed, [d_inner, d_inner + n_groups * d_state])
        dt = np.log1p(np.exp(dt + w["dt_bias"]))
        y = np.zeros((n_heads, head_dim))
        for head in range(n_heads):
            group = head * n_groups // n_heads
            own = slice(group * d_state, (group + 1) * d_state)
            u_head = u[head * head_dim : (head + 1) * head_dim]
            decay = np.exp(-np.exp(w["A_log"][head]) * dt[head])
            h[head] = decay * h[head] + dt[head] * np.outer(u_head, B[own])
            y[head] = h[head] @ C[own] + w["D"][head] * u_head
        groups = (y.ravel() * silu(z)).reshape(n_groups, -1)
        normed = groups / np.sqrt((groups**2).mean(1, keepdims=True) + 1e-5)
        outputs.append(w["out_proj.weight"] @ (normed.ravel() * w["norm.weight"]))
    return np.array(outputs)


@pytest.mark.parametrize("n_groups", [1, 2])
def test_agrees_with_the_papers_recurrence(n_groups):
    torch.manual_seed(0)
    layer = Mamba2(8, d_state=4, head_dim=4, n_groups=n_groups).double()
    torch.nn.init.normal_(layer.norm.weight)
    x = torch.randn(2, 17, 8, dtype=torch.float64)
    expected = [mamba2_by_the_paper(layer.state_dict(), row.numpy(), 4, n_groups) for row in x]
    np.testing.assert_allclose(layer(x).detach().numpy(), np.stack(expected), rtol=1e-10, atol=1e-12)


def theirs(**options):
    config = Mamba2Config(
        hidden_size=32,
        state_size=16,
        num_heads=8,
        head_dim=8,
        num_hidden_layers=1,
        chunk_size=16,
        layer_norm_epsilon=1e-4,
        **options,
    )
    return Mamba2Mixer(config, layer_idx=0).eval(), config


@pytest.mark.parametrize(
    ("options", "their_options"),
    [
        ({}, {"n_groups": 1}),
        ({"n_groups": 4}, {"n_groups": 4}),
        ({"dt_limit": (0.01, 0.02)}, {"n_groups": 1, "time_step_limit": (0.01, 0.02)}),
        (
            {"bias": True, "conv_bias": False, "d_conv": 3},
            {"n_groups": 1, "use_bias": True, "use_conv_bias": False, "conv_kernel": 3},
        ),
    ],
)
def test_agrees_with_transformers(options, their_options):
    torch.manual_seed(0)
    oracle, config = theirs(**their_options)
    layer = Mamba2(32, d_state=16, head_dim=8, norm_eps=1e-4, **options)
    torch.nn.init.normal_(layer.norm.weight)
    oracle.load_state_dict(layer.state_dict())
    x = 3 * torch.randn(2, 100, 32)
    torch.testing.assert_close(layer(x), oracle(x), rtol=1e-5, atol=1e-5)

    cache = DynamicCache(config=config)
    prompt = oracle(x[:, :90], cache_params=cache)
    y, state = layer.extend(x[:, :90], layer.init_state(2))
    torch.testing.assert_close(y, prompt, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(state.ssm, cache.get_recurrent_state(0), rtol=1e-5, atol=1e-5)
    inputs = cache.get_conv_state(0).transpose(1, 2)
    torch.testing.assert_close(state.conv, inputs[:, -state.conv.shape[1] :], rtol=1e-5, atol=1e-5)
    if "dt_limit" not in options:  # their step leaves the limit out
        next_y, _ = layer.step(x[:, 90], state)
        torch.testing.assert_close(
            next_y, oracle(x[:, 90:91], cache_params=cache)[:, 0], rtol=1e-5, atol=1e-5
        )


def test_parameters_have_the_published_models_names_and_shapes():
    shapes = {name: tuple(p.shape) for name, p in Mamba2(64, d_state=16, head_dim=32).named_parameters()}
    assert shapes == {
        "in_proj.weight": (2 * 128 + 2 * 16 + 4, 64),
        "conv1d.weight": (128 + 2 * 16, 1, 4),
        "conv1d.bias": (128 + 2 * 16,),
        "dt_bias": (4,),
        "A_log": (4,),
        "D": (4,),
        "norm.weight": (128,),
        "out_proj.weight": (64, 128),
    }


def test_recurrences_begin_between_their_bounds():
    torch.manual_seed(0)
    layer = Mamba2(256, head_dim=1, dt_min=0.01, dt_max=0.2, dt_init_floor=0.02, A_init_range=(2.0, 3.0))
    dt, A = torch.nn.functional.softplus(layer.dt_bias), layer.A_log.exp()
    assert 0.02 * 0.999 <= dt.min() < 0.0201
    assert 0.18 < dt.max() <= 0.2 * 1.001
    assert 2 * 0.999 <= A.min() < 2.1
    assert 2.9 < A.max() <= 3 * 1.001
    assert all(layer.get_parameter(name)._no_weight_decay for name in ("A_log", "D", "dt_bias"))


@pytest.mark.parametrize(
    ("d_model", "options", "heads"),
    [
        (8, {}, (1, 16)),
        (256, {}, (8, 64)),
        (48, {}, (2, 48)),
        (48, {"n_groups": 3}, (3, 32)),
        (8, {"head_dim": 2}, (8, 2)),
    ],
)
def test_heads_are_as_wide_as_can_be_up_to_64(d_model, options, heads):
    layer = Mamba2(d_model, d_state=2, **options)
    assert (layer.n_heads, layer.head_dim) == heads


def test_autocast_runs_forward_backward_and_step():
    torch.manual_seed(0)
    layer, x = Mamba2(16, d_state=8), torch.randn(2, 9, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
        y_0, state = layer.step(x[:, 0], layer.init_state(2))
    y.float().sum().backward()
    assert y.dtype == y_0.dtype == torch.bfloat16
    assert state.ssm.dtype == state.conv.dtype == torch.float32
    torch.testing.assert_close(y.float(), layer(x), rtol=0.1, atol=0.05)


def test_half_precision_states_keep_the_recurrence_in_float32():
    state = Mamba2(16).bfloat16().init_state(2)
    assert (state.conv.dtype, state.ssm.dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"d_model": 0}, "d_model is 0"),
        ({"d_state": 0}, "d_state is 0"),
        ({"d_conv": 0}, "d_conv is 0"),
        ({"expand": 0}, "expand is 0"),
        ({"n_groups": 0}, "n_groups is 0"),
        ({"n_groups": 3}, "n_groups is 3, allowed is a divisor of d_inner=16"),
        ({"head_dim": 0}, "head_dim is 0, allowed is a divisor of d_inner / n_groups = 16"),
        ({"head_dim": 16, "n_groups": 2}, "head_dim is 16, allowed is a divisor of d_inner / n_groups = 8"),
        ({"dt_min": 1.0}, "dt_min is 1.0"),
        ({"dt_limit": (1.0, 0.5)}, r"dt_limit is \(1.0, 0.5\), allowed is 0 <= smallest <= largest"),
        ({"A_init_range": (0.0, 1.0)}, r"A_init_range is \(0.0, 1.0\), allowed is 0 < smallest"),
        ({"norm_eps": -1.0}, "norm_eps is -1.0"),
    ],
)
def test_a_wrong_argument_is_named(wrong, message):
    with pytest.raises(ArgumentError, match=f"mamba2: {message}"):
        Mamba2(**{"d_model": 8, **wrong})
