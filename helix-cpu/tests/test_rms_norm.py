"""The kernel of `rms_norm`: odd sizes, narrow dtypes and extremes, on every instruction set."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import helix_ssm.ops  # noqa: F401 - defines the contract
from helix_cpu.ops.rms_norm import rms_norm, rms_norm_backward
from helix_kernel.ops import reference

REFERENCE, GRADIENT = reference("rms_norm"), reference("rms_norm_backward")
pytestmark = pytest.mark.usefixtures("isa")


def close(found, expected, tolerance):
    scale = expected.double().abs().max().clamp(min=1e-30) if expected.numel() else 1.0
    return ((found.double() - expected.double()).abs() <= tolerance * scale).all()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n_rows=st.integers(0, 70),
    group_size=st.integers(4, 70),  # of fewer channels the gradient is a difference of near equals
    n_groups=st.integers(1, 3),
    gate=st.booleans(),
    norm_before_gate=st.booleans(),
    seed=st.integers(0, 9),
)
def test_any_size_agrees_with_the_reference(n_rows, group_size, n_groups, gate, norm_before_gate, seed):
    generator = torch.Generator().manual_seed(seed)
    x, z, grad = torch.randn(3, n_rows, n_groups * group_size, generator=generator)
    weight = torch.randn(n_groups * group_size, generator=generator)
    rest = (1e-5, z if gate else None, group_size, norm_before_gate)
    wide = (1e-5, z.double() if gate else None, group_size, norm_before_gate)
    assert close(rms_norm(x, weight, *rest), REFERENCE(x.double(), weight.double(), *wide), 1e-6)
    found = rms_norm_backward(grad, x, weight, *rest)
    expected = GRADIENT(grad.double(), x.double(), weight.double(), *wide)
    assert all(close(*pair, 5e-5) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_inputs_are_computed_in_float32(dtype):
    x, z = torch.randn(2, 37, 40).to(dtype)
    weight = torch.randn(40)
    y = rms_norm(x, weight, 1e-5, z, 40, norm_before_gate=True)
    assert y.dtype is dtype
    exact = REFERENCE(x.double(), weight.double(), 1e-5, z.double(), 40, True)
    assert close(y, exact, torch.finfo(dtype).eps)


def cut(x, layout):
    """Lay the same values out otherwise: as a part of each row, of each sequence, or with channels apart."""
    if layout == "part-of-rows":
        return torch.cat([x, x + 1, x], dim=-1)[..., : x.shape[-1]]
    if layout == "part-of-sequences":
        return torch.cat([x, x + 1], dim=1)[:, : x.shape[1]]
    return x.transpose(-1, -2).contiguous().transpose(-1, -2)


@pytest.mark.parametrize("layout", ["part-of-rows", "part-of-sequences", "channels-apart"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_may_lie_apart(layout, dtype):
    x, z, grad = torch.randn(3, 2, 5, 37).to(dtype)
    weight = torch.randn(37)
    given = cut(x, layout), cut(z, layout)
    assert not given[0].is_contiguous()
    y = rms_norm(given[0], weight, 1e-5, given[1], 37, False)
    assert torch.equal(y, rms_norm(x, weight, 1e-5, z, 37, False))
    assert y.is_contiguous()
    found = rms_norm_backward(grad, given[0], weight, 1e-5, given[1], 37, False)
    expected = rms_norm_backward(grad, x, weight, 1e-5, z, 37, False)
    assert all(map(torch.equal, found, expected))


def test_rows_evenly_apart_are_read_where_they_lie(monkeypatch):
    x, weight = torch.randn(2, 5, 40)[..., :7], torch.ones(7)
    expected = rms_norm(x.contiguous(), weight, 1e-5, None, 7, True)

    def refuse(*_args, **_kwargs):
        raise AssertionError("copied")

    monkeypatch.setattr(torch.Tensor, "contiguous", refuse)
    assert torch.equal(rms_norm(x, weight, 1e-5, None, 7, True), expected)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e18])
def test_extreme_rows_stay_finite(scale):
    x = torch.randn(3, 33) * scale
    y = rms_norm(x, torch.ones(33), 1e-5, None, 33, norm_before_gate=True)
    assert close(y, REFERENCE(x.double(), torch.ones(33).double(), 1e-5, None, 33, True), 1e-6)


def test_a_closed_gate_gives_zero_and_not_nan():
    x, z = torch.ones(1, 40), torch.full((1, 40), -200.0)
    assert (rms_norm(x, torch.ones(40), 1e-5, z, 40, norm_before_gate=True).abs() < 1e-30).all()


def test_float64_is_left_to_the_next_backend():
    x = torch.ones(2, 4, dtype=torch.float64)
    assert rms_norm(x, torch.ones(4), 1e-5, None, 4, norm_before_gate=True) is NotImplemented
    assert rms_norm_backward(x, x, torch.ones(4), 1e-5, None, 4, norm_before_gate=True) is NotImplemented
