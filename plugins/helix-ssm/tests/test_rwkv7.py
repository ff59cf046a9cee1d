from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.layers import LayerSuite
from helix_ssm.layers.language_model import LanguageModel
from helix_ssm.layers.rwkv7 import RWKV7
from helix_ssm.layers.rwkv7_channel_mix import RWKV7ChannelMix


class TestRWKV7(LayerSuite):
    def make_layer(self):
        return RWKV7(self.d_model)


class TestRWKV7WithEveryOptionChanged(LayerSuite):
    def make_layer(self):
        return RWKV7(self.d_model, head_dim=4, decay_low_rank_dim=2, a_low_rank_dim=3, gate_low_rank_dim=5)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def time_mix_by_the_paper(layer, x):
    """Section 4.1 of arXiv:2503.14456 for one sequence x (L, D), its state (V, K) as there."""
    w = {name: tensor.numpy() for name, tensor in layer.state_dict().items()}
    heads, width = layer.n_heads, layer.head_dim
    S = np.zeros((heads, width, width))
    last, outputs = np.zeros(x.shape[1]), []
    for x_t in x:
        mixed = {c: x_t + (last - x_t) * w[f"x_{c}"] for c in "rwkvag"}
        last = x_t
        r, k, v = (w[f"{name}.weight"] @ mixed[name[0]] for name in ("receptance", "key", "value"))
        decay = np.exp(-math.exp(-0.5) * sigmoid(w["w0"] + np.tanh(mixed["w"] @ w["w1"]) @ w["w2"]))
        rate = sigmoid(w["a0"] + mixed["a"] @ w["a1"] @ w["a2"])
        gate = sigmoid(mixed["g"] @ w["g1"]) @ w["g2"]
        removal, k = k * w["k_k"], k * (1 + (rate - 1) * w["k_a"])
        out = []
        for h in range(heads):
            own = slice(h * width, (h + 1) * width)
            kappa = removal[own] / np.linalg.norm(removal[own])
            transition = np.diag(decay[own]) - np.outer(kappa, rate[own] * kappa)
            S[h] = S[h] @ transition + np.outer(v[own], k[own])
            o = S[h] @ r[own]
            o = (o - o.mean()) / np.sqrt(o.var() + 1e-5 * width)
            o = o * w["ln_x.weight"][own] + w["ln_x.bias"][own]
            out.append(o + (r[own] * w["r_k"][h] * k[own]).sum() * v[own])
        outputs.append(w["out_proj.weight"] @ (np.concatenate(out) * gate))
    return np.array(outputs)


def test_agrees_with_the_papers_recurrence():
    torch.manual_seed(0)
    layer = RWKV7(12, head_dim=4, decay_low_rank_dim=5).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(2, 17, 12, dtype=torch.float64)
    expected = np.stack([time_mix_by_the_paper(layer, row.numpy()) for row in x])
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-10, atol=1e-10)


def test_decays_stay_within_the_papers_bounds_however_they_are_trained():
    layer = RWKV7(8)
    torch.nn.init.normal_(layer.w0, std=100)
    decay = layer._log_decay(torch.randn(2, 5, 8)).exp()
    assert decay.min() >= math.exp(-math.exp(-0.5)) - 1e-6
    assert decay.max() <= 1


def test_begins_as_the_authors_layer_in_mid_stack():
    layer = RWKV7(128, head_dim=64)
    n, N, ratio = torch.arange(128.0), 64, 0.5
    zigzag = ((n % N) - (N - 1) / 2) / ((N - 1) / 2)
    w0 = -6 + 6 * (n / 127) ** (1 + ratio**0.3) + 0.5 + 2.5 * zigzag * zigzag.abs()
    torch.testing.assert_close(layer.w0, torch.nn.Parameter(w0))
    a0 = -0.19 + 0.3 * zigzag * zigzag.abs() + 0.4 * (n / 127 - 0.5)
    torch.testing.assert_close(layer.a0, torch.nn.Parameter(a0))
    torch.testing.assert_close(layer.x_k, torch.nn.Parameter(1 - (n / 128) ** (0.7 * ratio)))
    assert (layer.k_a == 1.02).all()
    assert (layer.r_k == -0.04).all()
    assert layer.key.weight.abs().max() <= 0.05 * 128**-0.5
    singular = torch.linalg.svdvals(layer.w2)
    torch.testing.assert_close(singular, torch.full_like(singular, 0.1))


def test_parameters_have_the_published_names_and_ranks():
    ranks = {name: tuple(p.shape) for name, p in RWKV7(768).named_parameters() if p.dim() == 2}
    assert ranks == {
        **dict.fromkeys(["receptance.weight", "key.weight", "value.weight", "out_proj.weight"], (768, 768)),
        "w1": (768, 64),
        "w2": (64, 768),
        "a1": (768, 64),
        "a2": (64, 768),
        "g1": (768, 128),
        "g2": (128, 768),
        "r_k": (12, 64),
    }


def test_vectors_are_spared_from_weight_decay():
    spared = {name for name, p in RWKV7(8).named_parameters() if getattr(p, "_no_weight_decay", False)}
    assert spared == {"x_r", "x_w", "x_k", "x_v", "x_a", "x_g", "w0", "a0", "k_k", "k_a", "r_k"}


def test_a_language_model_of_both_mixes_streams_packed_rows():
    torch.manual_seed(0)
    model = LanguageModel(16, n_layers=2, mixer=RWKV7, channel=RWKV7ChannelMix).double().eval()
    ids = torch.randint(0, 256, (1, 20))
    bounds = torch.tensor([0, 3, 3, 20])
    alone = torch.cat([model(ids[:, :3]), model(ids[:, 3:])], dim=1)
    torch.testing.assert_close(model(ids, cu_seqlens=bounds), alone)
    state, logits = model.init_state(1), []
    for token in ids[:, 3:].unbind(1):
        y, state = model.step(token, state)
        logits.append(y)
    torch.testing.assert_close(torch.stack(logits, dim=1), alone[:, 3:])


def test_heads_may_be_one_channel_wide():
    torch.manual_seed(0)
    layer, x = RWKV7(3, head_dim=1), torch.randn(1, 4, 3)
    y, state = layer.extend(x[:, :1], layer.init_state(1))
    rest, _ = layer.extend(x[:, 1:], state)
    torch.testing.assert_close(torch.cat([y, rest], dim=1), layer(x))


def test_autocast_keeps_the_memory_in_float32():
    torch.manual_seed(0)
    layer, x = RWKV7(16), torch.randn(2, 9, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = layer.extend(x, layer.init_state(2))
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert (state.last.dtype, state.memory.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(y.float(), layer(x), rtol=0.1, atol=0.05)


def test_half_precision_states_keep_the_memory_in_float32():
    state = RWKV7(16).bfloat16().init_state(2)
    assert (state.last.dtype, state.memory.dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"d_model": 0}, "d_model is 0"),
        ({"head_dim": 0}, "head_dim is 0"),
        ({"head_dim": 3}, "head_dim is 3, allowed is a divisor of d_model=8"),
        ({"decay_low_rank_dim": 0}, "decay_low_rank_dim is 0"),
        ({"a_low_rank_dim": 0}, "a_low_rank_dim is 0"),
        ({"gate_low_rank_dim": 0}, "gate_low_rank_dim is 0"),
    ],
)
def test_a_wrong_argument_is_named(wrong, message):
    with pytest.raises(ArgumentError, match=f"rwkv7: {message}"):
        RWKV7(**{"d_model": 8, **wrong})
