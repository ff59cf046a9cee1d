"""RMS normalisation in Triton against the contract's reference in float64."""

from __future__ import annotations

import pytest
import torch

from helix_ssm.ops import rms_norm

pytestmark = pytest.mark.usefixtures("serve")
ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}


def _case(device, *, rows=5, width=33, dtype=torch.float32, gated=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draws = [torch.randn(rows, width, generator=generator) for _ in range(3)]
    x, z, grad = (draw.to(device, dtype) for draw in draws)
    weight = torch.randn(width, generator=generator).to(device)
    return x, weight, z if gated else None, grad


def _with_gradients(x, weight, z, grad, **options):
    leaves = [None if leaf is None else leaf.detach().requires_grad_() for leaf in (x, weight, z)]
    y = rms_norm(leaves[0], leaves[1], 1e-5, leaves[2], **options)
    y.backward(grad)
    return [y.detach(), *(leaf.grad for leaf in leaves if leaf is not None)]


def _exact(x, weight, z, grad, **options):
    wide = (None if t is None else t.double() for t in (x, weight, z, grad))
    return _with_gradients(*wide, **options)


def _assert_close(found, expected, tolerance):
    """Inputs are of the size of 1; the gradient of a single channel is a difference of near equals."""
    for one, other in zip(found, expected, strict=True):
        assert (one.double() - other).abs().max() <= tolerance * max(other.abs().max(), 1)


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("norm_before_gate", [True, False])
def test_it_rounds_once(device, dtype, norm_before_gate):
    case = _case(device, dtype=dtype, gated=True)
    options = {"norm_before_gate": norm_before_gate}
    _assert_close(_with_gradients(*case, **options), _exact(*case, **options), 2 * ROUNDING[dtype])


@pytest.mark.parametrize("width", [1, 3, 16, 17, 257])
@pytest.mark.parametrize("rows", [1, 2, 9])
def test_any_shape(device, rows, width):
    case = _case(device, rows=rows, width=width)
    _assert_close(_with_gradients(*case), _exact(*case), 1e-5)


@pytest.mark.parametrize("group_size", [1, 3, 6])
def test_groups_are_normalised_apart(device, group_size):
    case = _case(device, width=12, gated=True)
    found = _with_gradients(*case, group_size=group_size)
    _assert_close(found, _exact(*case, group_size=group_size), 1e-5)


def test_slices_of_a_projection_need_no_copy_to_be_right(device):
    wide = _case(device, rows=6, width=40)[0].view(2, 3, 40)
    x, z, weight = wide[..., 5:14], wide[..., 20:29], torch.ones(9, device=device)
    expected = rms_norm(x.double(), weight.double(), 1e-5, z.double())
    _assert_close([rms_norm(x, weight, 1e-5, z)], [expected], 1e-6)


def test_rows_of_zeros_stay_finite(device):
    x, weight, _, grad = _case(device)
    x[1] = 0
    assert all(result.isfinite().all() for result in _with_gradients(x, weight, None, grad))


def test_no_rows(device):
    x, weight, _, grad = _case(device, rows=0)
    y, grad_x, grad_weight = _with_gradients(x, weight, None, grad)
    assert y.shape == grad_x.shape == (0, 33)
    assert not grad_weight.any()


def test_more_rows_than_sums_of_the_weights_gradient(device, monkeypatch):
    monkeypatch.setattr("helix_cuda.ops.rms_norm._PROGRAMS", 3)
    monkeypatch.setattr("helix_cuda.ops.rms_norm._TILE", 64)
    case = _case(device, rows=17)
    _assert_close(_with_gradients(*case), _exact(*case), 1e-5)


def test_a_repeated_call_gives_the_same_bits(device):
    case = _case(device, gated=True)
    for one, other in zip(_with_gradients(*case), _with_gradients(*case), strict=True):
        assert torch.equal(one, other)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("width", [768, 2048, 4096, 5120, 16384])
@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
def test_shapes_of_real_models(device, width, dtype):
    case = _case(device, rows=16384, width=width, dtype=dtype, gated=True)
    _assert_close(_with_gradients(*case), _exact(*case), 2 * ROUNDING[dtype])
