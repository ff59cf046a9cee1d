from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.cache_utils import DynamicCache
from transformers.models.falcon_mamba.configuration_falcon_mamba import FalconMambaConfig
from transformers.models.falcon_mamba.modeling_falcon_mamba import FalconMambaMixer
from transformers.models.mamba.configuration_mamba import MambaConfig
from transformers.models.mamba.modeling_mamba import MambaMixer

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.layers import LayerSuite
from helix_ssm.layers.mamba import Mamba
from helix_ssm.ops.selective_scan import INTERVAL


class TestMamba(LayerSuite):
    def make_layer(self):
        return Mamba(self.d_model)


class TestMambaWithEveryOptionChanged(LayerSuite):
    def make_layer(self):
        return Mamba(
            self.d_model,
            d_state=3,
            d_conv=2,
            expand=1,
            dt_rank=4,
            dt_max=0.5,
            conv_bias=False,
            bias=True,
            bcdt_rms_eps=1e-3,
        )


def silu(x):
    return x / (1 + np.exp(-x))


def mamba_by_the_paper(weights, x):
    """Algorithm 2 and figure 3 of arXiv:2312.00752 for one sequence x (L, D), token by token."""
    w = {name: tensor.numpy() for name, tensor in weights.items()}
    d_inner, d_state = w["A_log"].shape
    dt_rank = w["dt_proj.weight"].shape[1]
    A = -np.exp(w["A_log"])
    past = np.zeros((w["conv1d.weight"].shape[-1], d_inner))
    h = np.zeros((d_inner, d_state))
    outputs = []
    for x_t in x:
        u, z = np.split(w["in_proj.weight"] @ x_t, 2)
        past = np.vstack([past[1:], u])
        u = silu((w["conv1d.weight"][:, 0].T * past).sum(0) + w["conv1d.bias"])
        dt, B, C = np.split(w["x_proj.weight"] @ u, [dt_rank, dt_rank + d_state])
        delta = np.log1p(np.exp(w["dt_proj.weight"] @ dt + w["dt_proj.bias"]))
        h = np.exp(delta[:, None] * A) * h + (delta * u)[:, None] * B
        outputs.append(w["out_proj.weight"] @ ((h @ C + w["D"] * u) * silu(z)))
    return np.array(outputs)


def test_agrees_with_the_papers_recurrence():
    torch.manual_seed(0)
    layer = Mamba(8, d_state=4).double()
    x = torch.randn(2, 17, 8, dtype=torch.float64)
    expected = np.stack([mamba_by_the_paper(layer.state_dict(), row.numpy()) for row in x])
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-10, atol=1e-12)


MODELS = {
    "mamba": (MambaConfig, MambaMixer, {}, {}),
    "mamba-biases": (
        MambaConfig,
        MambaMixer,
        {"use_bias": True, "use_conv_bias": False},
        {"bias": True, "conv_bias": False},
    ),
    "falcon-mamba": (FalconMambaConfig, FalconMambaMixer, {"mixer_rms_eps": 1e-2}, {"bcdt_rms_eps": 1e-2}),
}


@pytest.mark.parametrize("model", MODELS)
def test_agrees_with_transformers(model):
    config_class, mixer, their_options, options = MODELS[model]
    torch.manual_seed(0)
    config = config_class(hidden_size=32, state_size=8, num_hidden_layers=1, **their_options)
    oracle, layer = (
        mixer(config, layer_idx=0, initialize_mixer_weights=False).eval(),
        Mamba(32, d_state=8, **options),
    )
    oracle.load_state_dict(layer.state_dict())
    x = 3 * torch.randn(2, 20, 32)
    cache = DynamicCache(config=config)
    prompt = oracle(x[:, :-1], cache_params=cache)
    y, state = layer.extend(x[:, :-1], layer.init_state(2))
    torch.testing.assert_close(y, prompt, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(state.ssm, cache.get_recurrent_state(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(state.conv, cache.get_conv_state(0).transpose(1, 2)[:, -3:])
    after = oracle(x[:, -1:], cache_params=cache)
    torch.testing.assert_close(layer.step(x[:, -1], state)[0], after[:, 0], rtol=1e-5, atol=1e-5)


def test_parameters_have_the_published_models_names_and_shapes():
    shapes = {name: tuple(p.shape) for name, p in Mamba(32).named_parameters()}
    assert shapes == {
        "A_log": (64, 16),
        "D": (64,),
        "in_proj.weight": (128, 32),
        "conv1d.weight": (64, 1, 4),
        "conv1d.bias": (64,),
        "x_proj.weight": (2 + 32, 64),
        "dt_proj.weight": (64, 2),
        "dt_proj.bias": (64,),
        "out_proj.weight": (32, 64),
    }


def test_step_sizes_begin_log_uniform_between_their_bounds():
    layer = Mamba(256, dt_min=0.01, dt_max=0.2)
    dt = torch.nn.functional.softplus(layer.dt_proj.bias)
    assert 0.01 * 0.999 <= dt.min() < 0.012
    assert 0.18 < dt.max() <= 0.2 * 1.001
    assert abs(dt.log().mean() - np.log(0.01 * 0.2) / 2) < 0.2


def test_A_begins_as_minus_one_to_minus_d_state():
    torch.testing.assert_close(Mamba(8, d_state=3)._A(), -torch.tensor([1.0, 2.0, 3.0]).expand(16, 3))


def test_autocast_runs_forward_backward_and_step():
    layer, x = Mamba(16), torch.randn(2, 9, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
        state = layer.init_state(2)
        y_0, state = layer.step(x[:, 0], state)
    y.float().sum().backward()
    assert y.dtype == y_0.dtype == torch.bfloat16
    assert state.ssm.dtype == state.conv.dtype == torch.float32
    torch.testing.assert_close(y.float(), layer(x), rtol=0.1, atol=0.05)


def test_half_precision_states_keep_the_recurrence_in_float32():
    state = Mamba(16).bfloat16().init_state(2)
    assert (state.conv.dtype, state.ssm.dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize(
    "wrong",
    [
        {"d_model": 0},
        {"d_state": 0},
        {"d_conv": 0},
        {"expand": 0},
        {"dt_rank": 0},
        {"dt_min": 1.0},
        {"dt_min": 0.0},
        {"bcdt_rms_eps": -1.0},
    ],
)
def test_a_wrong_argument_is_named(wrong):
    with pytest.raises(ArgumentError, match=f"mamba: {next(iter(wrong))} is"):
        Mamba(**{"d_model": 8, **wrong})


def test_it_exports_with_a_length_left_open():
    layer = Mamba(8).eval()
    # The scan saves a state every INTERVAL tokens, and torch.export takes no size that may be 0 or 1.
    length = torch.export.Dim("length", min=2 * INTERVAL + 1, max=4096)
    program = torch.export.export(layer, (torch.randn(1, 100, 8),), dynamic_shapes=({1: length},)).module()
    for seq_len in (2 * INTERVAL + 1, 70, 200):
        x = torch.randn(1, seq_len, 8)
        torch.testing.assert_close(program(x), layer(x))
