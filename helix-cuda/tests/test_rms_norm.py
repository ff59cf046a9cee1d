"""RMS normalisation in Triton against the contract's reference in float64."""

from __future__ import annotations

import pytest
import torch
from against_float64 import DTYPES, ROUNDING, assert_exact, assert_repeats, with_gradients

from helix_ssm.ops import rms_norm

pytestmark = pytest.mark.usefixtures("serve")


def _case(device, *, rows=5, width=33, dtype=torch.float32, gated=False):
    generator = torch.Generator().manual_seed(0)
    x, z = (torch.randn(rows, width, generator=generator).to(device, dtype) for _ in range(2))
    weight = torch.randn(width, generator=generator).to(device)
    return {"x": x, "weight": weight, "z": z if gated else None}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("norm_before_gate", [True, False])
def test_it_rounds_once(device, dtype, norm_before_gate):
    case = _case(device, dtype=dtype, gated=True) | {"norm_before_gate": norm_before_gate}
    assert_exact(rms_norm, case, 2 * ROUNDING[dtype])


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (2, 3), (9, 16), (1, 17), (9, 257)])
def test_any_shape(device, rows, width):
    assert_exact(rms_norm, _case(device, rows=rows, width=width))


@pytest.mark.parametrize("group_size", [1, 3, 6])
def test_groups_are_normalised_apart(device, group_size):
    assert_exact(rms_norm, _case(device, width=12, gated=True) | {"group_size": group_size})


def test_slices_of_a_projection_need_no_copy_to_be_right(device):
    wide = _case(device, rows=6, width=40)["x"].view(2, 3, 40)
    assert_exact(rms_norm, {"x": wide[..., 5:14], "weight": wide[0, 0, :9], "z": wide[..., 20:29]})


def test_rows_of_zeros_stay_finite(device):
    case = _case(device)
    case["x"][1] = 0
    assert all(result.isfinite().all() for result in with_gradients(rms_norm, case))


def test_no_rows(device):
    y, grad_x, grad_weight = with_gradients(rms_norm, _case(device, rows=0))
    assert y.shape == grad_x.shape == (0, 33)
    assert not grad_weight.any()


def test_more_rows_than_sums_of_the_weights_gradient(device, monkeypatch):
    monkeypatch.setattr("helix_cuda.ops.rms_norm._PROGRAMS", 3)
    monkeypatch.setattr("helix_cuda.ops.rms_norm._TILE", 64)
    assert_exact(rms_norm, _case(device, rows=17))


def test_a_repeated_call_gives_the_same_bits(device):
    assert_repeats(rms_norm, _case(device, gated=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("width", [768, 2048, 4096, 5120, 16384])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_shapes_of_real_models(device, width, dtype):
    assert_exact(
        rms_norm, _case(device, rows=16384, width=width, dtype=dtype, gated=True), 2 * ROUNDING[dtype]
    )
