from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.layers import LayerSuite
from helix_ssm.layers.mamba3 import Mamba3
from helix_ssm.layers.sequences import Sequences
from helix_ssm.layers.trapezoidal import trapezoidal_scan
from helix_ssm.ops import ssd_scan


class TestMamba3(LayerSuite):
    def make_layer(self):
        return Mamba3(self.d_model, d_state=16)


class TestMamba3WithEveryOptionChanged(LayerSuite):
    def make_layer(self):
        return Mamba3(
            self.d_model,
            d_state=6,
            expand=3,
            head_dim=4,
            n_groups=2,
            mimo_rank=2,
            rope_fraction=1.0,
            dt_max=0.5,
            dt_init_floor=0.01,
            A_floor=0.01,
            A_activation="softplus",
            outproj_norm=True,
        )


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def unit(x, weight):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * weight


def mamba3_by_the_paper(layer, x):
    """Section 3 of arXiv:2603.15569 for one sequence x (L, D), token by token, its states complex numbers."""
    w = {name: tensor.numpy() for name, tensor in layer.state_dict().items()}
    n_heads, rank, n_groups, half = layer.n_heads, layer.rank, layer.n_groups, layer.d_state // 2
    shape = (n_heads, layer.head_dim)
    sizes = [layer.d_inner] * 2 + [2 * half * rank * n_groups] * 2 + [n_heads] * 3
    ones = np.ones((n_heads, rank, layer.head_dim))
    mimo_x, mimo_z, mimo_o = (w.get(f"mimo_{name}", ones) for name in "xzo")
    h = np.zeros((*shape, half), dtype=complex)
    outputs, before = [], np.zeros_like(h)
    for x_t in x:
        z, u, B, C, dt, A, mix, turn = np.split(w["in_proj.weight"] @ x_t, np.cumsum(sizes))
        dt, mix = np.log1p(np.exp(dt + w["dt_bias"])), sigmoid(mix)
        f = np.log1p(np.exp(A)) if layer.A_activation == "softplus" else np.where(A > 0, 1 + A, 1 / (1 - A))
        A = -np.maximum(f, layer.A_floor)
        y = np.zeros(shape)
        for head in range(n_heads):
            group = head * n_groups // n_heads
            B_head, C_head = (
                complex_pairs(
                    unit(values.reshape(rank, n_groups, -1)[:, group], w[f"{name}_norm.weight"])
                    + w[f"{name}_bias"][head],
                    neighbours=layer.mimo_x is None,
                )
                for name, values in (("B", B), ("C", C))
            )
            speed = np.zeros(half)
            speed[: len(turn)] = np.pi * np.tanh(turn)
            u_head = u.reshape(shape)[head] * mimo_x[head]
            written = u_head.T @ B_head
            decay = np.exp(dt[head] * (A[head] - 1j * speed))
            h[head] = decay * (h[head] + (1 - mix[head]) * dt[head] * before[head])
            h[head] += mix[head] * dt[head] * written
            before[head] = written
            y_head = np.real(np.conj(C_head) @ h[head].T) + w["D"][head] * u_head
            if layer.norm is not None:
                y_head = unit(y_head, w["norm.weight"].reshape(shape)[head])
            gate = z.reshape(shape)[head] * mimo_z[head]
            y[head] = (y_head * gate * sigmoid(gate) * mimo_o[head]).sum(0)
        outputs.append(w["out_proj.weight"] @ y.ravel())
    return np.array(outputs)


def complex_pairs(x, *, neighbours):
    half = x.shape[-1] // 2
    return x[:, 0::2] + 1j * x[:, 1::2] if neighbours else x[:, :half] + 1j * x[:, half:]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n_groups": 2, "rope_fraction": 1.0},
        {"A_activation": "softplus", "A_floor": 0.7, "outproj_norm": True},
        {"mimo_rank": 1},
        {"mimo_rank": 3, "n_groups": 2},
        {"mimo_rank": 2, "outproj_norm": True, "rope_fraction": 1.0},
    ],
)
def test_agrees_with_the_papers_complex_recurrence(options):
    torch.manual_seed(0)
    layer = Mamba3(8, d_state=8, head_dim=4, **options).double()
    for parameter in layer.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    x = 2 * torch.randn(2, 17, 8, dtype=torch.float64)
    expected = np.stack([mamba3_by_the_paper(layer, row.numpy()) for row in x])
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-9, atol=1e-11)


def test_with_the_whole_step_at_its_own_token_the_rule_is_mamba_2s():
    torch.manual_seed(0)
    x, B, C = (torch.randn(2, 9, 1, 3, n, dtype=torch.float64) for n in (4, 5, 5))
    dt, A = torch.rand(2, 9, 3).double(), -torch.rand(3).double()
    state, last_x, last_B = (torch.randn(2, *shape).double() for shape in ((3, 4, 5), (1, 3, 4), (1, 3, 5)))
    y, final = trapezoidal_scan(
        x, B, C, dt, dt * A, torch.ones_like(dt), state=state, last_x=last_x, last_B=last_B
    )
    expected = ssd_scan(
        x[:, :, 0], dt, A, B[:, :, 0], C[:, :, 0], initial_state=state, return_final_state=True
    )
    torch.testing.assert_close((y[:, :, 0], final), expected)


def test_parameters_have_the_authors_names_and_shapes():
    layer = Mamba3(64, d_state=16, head_dim=32, n_groups=2, mimo_rank=3, outproj_norm=True)
    shapes = {name: tuple(p.shape) for name, p in layer.named_parameters()}
    assert shapes == {
        "in_proj.weight": (2 * 128 + 2 * 16 * 3 * 2 + 3 * 4 + 4, 64),
        "dt_bias": (4,),
        "B_bias": (4, 3, 16),
        "C_bias": (4, 3, 16),
        "B_norm.weight": (16,),
        "C_norm.weight": (16,),
        "D": (4,),
        "mimo_x": (4, 3, 32),
        "mimo_z": (4, 3, 32),
        "mimo_o": (4, 3, 32),
        "norm.weight": (128,),
        "out_proj.weight": (64, 128),
    }
    plain = {name for name, _ in Mamba3(64).named_parameters()}
    assert plain == set(shapes) - {"mimo_x", "mimo_z", "mimo_o", "norm.weight"}


def test_weights_begin_as_the_authors():
    torch.manual_seed(0)
    layer = Mamba3(256, head_dim=1, d_state=4, mimo_rank=4, dt_min=0.01, dt_max=0.2, dt_init_floor=0.02)
    dt = torch.nn.functional.softplus(layer.dt_bias)
    assert 0.02 * 0.999 <= dt.min() < 0.0201
    assert 0.18 < dt.max() <= 0.2 * 1.001
    for name, value in {
        "B_bias": 1,
        "C_bias": 1,
        "D": 1,
        "mimo_x": 1 / 4,
        "mimo_z": 1,
        "mimo_o": 1 / 4,
    }.items():
        assert (layer.get_parameter(name) == value).all(), name
    assert all(layer.get_parameter(name)._no_weight_decay for name in ("D", "dt_bias"))


def test_the_heavy_tailed_rate_is_slower_to_vanish_than_softplus():
    a = torch.tensor([-9.0, -1.0, 0.0, 2.0])
    torch.testing.assert_close(Mamba3(8)._rate(a), -torch.tensor([0.1, 0.5, 1.0, 3.0]))
    softplus = Mamba3(8, A_activation="softplus", A_floor=0.01)._rate(a)
    torch.testing.assert_close(softplus, -torch.nn.functional.softplus(a).clamp(min=0.01))


def test_angles_stay_within_one_turn_and_exact():
    """A hundred thousand turns by the same angle, in float32 all along, against one product."""
    layer = Mamba3(8, d_state=4)
    turn, dt = torch.full((1, 100_000, 1), 0.5), torch.full((1, 100_000, 1), 2.0)
    state = layer.init_state(1)
    angles = layer._angles(dt, turn, state.angle, Sequences(None))
    speed = (math.pi * torch.tanh(turn[0, 0]) * dt[0, 0]).double()
    expected = (speed * 100_000).remainder(2 * math.pi)
    assert 0 <= angles.min() <= angles.max() <= 2 * math.pi
    torch.testing.assert_close(angles[0, -1, 0].double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mimo_rank", [None, 2])
def test_autocast_keeps_the_recurrence_in_float32(mimo_rank):
    torch.manual_seed(0)
    layer, x = Mamba3(16, d_state=8, mimo_rank=mimo_rank), torch.randn(2, 9, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = layer.extend(x, layer.init_state(2))
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert {tensor.dtype for tensor in state} == {torch.float32}
    torch.testing.assert_close(y.float(), layer(x), rtol=0.1, atol=0.05)


@pytest.mark.parametrize("mimo_rank", [None, 2])
def test_half_precision_states_keep_the_recurrence_in_float32(mimo_rank):
    layer = Mamba3(16, d_state=8, mimo_rank=mimo_rank).bfloat16()
    dtypes = [tensor.dtype for tensor in layer.init_state(2)]
    assert dtypes == [torch.float32, torch.float32, torch.float32, torch.bfloat16]
    y, state = layer.extend(torch.randn(2, 5, 16).bfloat16(), layer.init_state(2))
    assert [y.dtype, *(tensor.dtype for tensor in state)] == [torch.bfloat16, *dtypes]


def test_autocast_does_not_round_the_recurrence():
    torch.manual_seed(0)
    x, B, C = (torch.randn(1, 9, 2, 3, n) for n in (4, 5, 5))
    dt, state = torch.rand(1, 9, 3), torch.randn(1, 3, 4, 5)
    before = {"state": state, "last_x": torch.randn(1, 2, 3, 4), "last_B": torch.randn(1, 2, 3, 5)}
    expected = trapezoidal_scan(x, B, C, dt, -dt, dt, **before)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = trapezoidal_scan(x, B, C, dt, -dt, dt, **before)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"d_model": 0}, "d_model is 0"),
        ({"d_state": 0}, "d_state is 0"),
        ({"d_state": 7}, "d_state is 7, allowed is an even number"),
        ({"expand": 0}, "expand is 0"),
        ({"n_groups": 0}, "n_groups is 0"),
        ({"n_groups": 3}, "n_groups is 3, allowed is a divisor of d_inner=16"),
        ({"head_dim": 3}, "head_dim is 3, allowed is a divisor of"),
        ({"mimo_rank": 0}, "mimo_rank is 0"),
        ({"rope_fraction": 1.5}, "rope_fraction is 1.5, allowed is >= 2 / d_state = 0.015625 and <= 1"),
        ({"rope_fraction": 0.25, "d_state": 4}, "rope_fraction is 0.25, allowed is >= 2 / d_state = 0.5"),
        ({"dt_min": 1.0}, "dt_min is 1.0"),
        ({"A_floor": -1.0}, "A_floor is -1.0"),
        (
            {"A_activation": "soft-plus"},
            "A_activation is 'soft-plus', allowed are .* Did you mean 'softplus'",
        ),
    ],
)
def test_a_wrong_argument_is_named(wrong, message):
    with pytest.raises(ArgumentError, match=f"mamba3: {message}"):
        Mamba3(**{"d_model": 8, **wrong})
