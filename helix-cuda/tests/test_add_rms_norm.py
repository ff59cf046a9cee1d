"""A residual's sum and its RMS norm in Triton against the contract's reference in float64."""

from __future__ import annotations

import pytest
import torch
from against_float64 import DTYPES, ROUNDING, assert_exact, assert_repeats, with_gradients

from helix_ssm.ops import add_rms_norm, rms_norm

pytestmark = pytest.mark.usefixtures("serve")


def _case(device, *, rows=5, width=33, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    x, residual = (torch.randn(rows, width, generator=generator).to(device, dtype) for _ in range(2))
    weight = torch.randn(width, generator=generator).to(device)
    return {"x": x, "residual": residual, "weight": weight}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_it_rounds_about_as_its_sum_does(device, dtype):
    assert_exact(add_rms_norm, _case(device, dtype=dtype), 2 * ROUNDING[dtype])


@pytest.mark.parametrize("dtypes", [(torch.bfloat16, torch.float32), (torch.float32, torch.float16)], ids=str)
def test_a_layer_may_be_of_another_dtype_than_the_stream(device, dtypes):
    case = _case(device)
    case |= {"x": case["x"].to(dtypes[0]), "residual": case["residual"].to(dtypes[1])}
    found = assert_exact(add_rms_norm, case, 2**-7)
    assert [each.dtype for each in found] == [torch.float32, torch.float32, *dtypes, torch.float32]


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (2, 3), (9, 16), (1, 17), (9, 257)])
def test_any_shape(device, rows, width):
    assert_exact(add_rms_norm, _case(device, rows=rows, width=width))


@pytest.mark.parametrize("through", [0, 1], ids=["y", "total"])
def test_a_gradient_may_come_through_one_result_alone(device, through):
    assert_exact(add_rms_norm, _case(device), through=[through])


def test_the_sum_is_normalised_as_it_is_kept(device):
    case = _case(device, dtype=torch.bfloat16)
    y, total = add_rms_norm(**case)
    assert torch.equal(total, case["x"] + case["residual"])
    assert torch.equal(y, rms_norm(total, case["weight"]))


def test_the_norm_with_a_residual_is_this_op(device):
    case = _case(device)
    found = with_gradients(rms_norm, case)
    assert all(torch.equal(*pair) for pair in zip(found, with_gradients(add_rms_norm, case), strict=True))


def test_slices_of_a_projection_need_no_copy_to_be_right(device):
    wide = _case(device, rows=6, width=40)["x"].view(2, 3, 40)
    assert_exact(add_rms_norm, {"x": wide[..., 5:14], "residual": wide[..., 20:29], "weight": wide[0, 0, :9]})


def test_rows_of_zeros_stay_finite(device):
    case = _case(device)
    case["x"][1], case["residual"][1] = 0, 0
    assert all(result.isfinite().all() for result in with_gradients(add_rms_norm, case))


def test_no_rows(device):
    assert_exact(add_rms_norm, _case(device, rows=0))


def test_more_rows_than_sums_of_the_weights_gradient(device, monkeypatch):
    monkeypatch.setattr("helix_cuda.ops.rms_norm._PROGRAMS", 3)
    monkeypatch.setattr("helix_cuda.ops.rms_norm._TILE", 64)
    assert_exact(add_rms_norm, _case(device, rows=17))


def test_a_repeated_call_gives_the_same_bits(device):
    assert_repeats(add_rms_norm, _case(device))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("width", [768, 4096, 16384])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_shapes_of_real_models(device, width, dtype):
    case = _case(device, rows=16384, width=width, dtype=dtype)
    assert_exact(add_rms_norm, case, 2 * ROUNDING[dtype])
    assert_repeats(add_rms_norm, case, times=20)
