"""The kernel of `causal_conv1d`: any length and width, packed and streamed, on every instruction set."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import helix_ssm.ops  # noqa: F401 - defines the contract
from helix_cpu.ops.causal_conv1d import causal_conv1d, causal_conv1d_backward
from helix_kernel.errors import ArgumentError
from helix_kernel.ops import reference

REFERENCE, GRADIENT = reference("causal_conv1d"), reference("causal_conv1d_backward")
pytestmark = pytest.mark.usefixtures("isa")


def close(found, expected, tolerance, least=1e-30):
    scale = expected.double().abs().max().clamp(min=least) if expected.numel() else 1.0
    return ((found.double() - expected.double()).abs() <= tolerance * scale).all()


def double(*tensors):
    return [tensor.double() if isinstance(tensor, torch.Tensor) else tensor for tensor in tensors]


def draw(*shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def check(x, weight, bias, silu, state, cu_seqlens, grads, least=1e-30):
    """Compare results and gradients with the reference in double precision.

    Differences are allowed in proportion to the largest element, or to `least`: what the terms of a sum
    come to, where a tensor is so small that they may happen to cancel in all of it.
    """
    args = (x, weight, bias, silu, state, cu_seqlens)
    wide = (*double(*args[:5]), cu_seqlens)
    pairs = zip(causal_conv1d(*args), REFERENCE(*wide), strict=True)
    assert all(close(*pair, 1e-6, least) for pair in pairs)
    pairs = zip(causal_conv1d_backward(*grads, *args), GRADIENT(*double(*grads), *wide), strict=True)
    assert all(close(*pair, 2e-6, least) for pair in pairs)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batch_size=st.integers(0, 3),
    seq_len=st.integers(0, 70),
    d_model=st.integers(0, 70),
    width=st.sampled_from([1, 2, 3, 4, 5, 9, 20]),
    silu=st.booleans(),
    given_=st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
    seed=st.integers(0, 9),
)
def test_any_size_agrees_with_the_reference(batch_size, seq_len, d_model, width, silu, given_, seed):
    rows = (batch_size, seq_len, d_model)
    states = (batch_size, width - 1, d_model)
    x, weight, *rest = draw(rows, (d_model, width), (d_model,), states, rows, states, seed=seed)
    bias, state, *grads = (tensor if keep else None for tensor, keep in zip(rest, given_, strict=True))
    check(x, weight, bias, silu, state, None, grads if any(given_[2:]) else rest[2:], least=width**0.5)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(0, 90), min_size=1, max_size=6), width=st.integers(1, 5), state=st.booleans()
)
def test_packed_sequences_agree_with_the_reference(lengths, width, state):
    bounds = torch.tensor([0, *lengths]).cumsum(0)
    n, seq_len, d_model = len(lengths), int(bounds[-1]), 19
    rows, states = (1, seq_len, d_model), (n, width - 1, d_model)
    x, weight, bias, first, *grads = draw(rows, (d_model, width), (d_model,), states, rows, states)
    check(x, weight, bias, True, first if state else None, bounds.int(), grads, least=1.0)


def test_pytorch_convolves_the_same():
    x, weight, bias = draw((2, 150, 2100), (2100, 4), (2100,))
    y, _ = causal_conv1d(x, weight, bias, silu=True, initial_state=None, cu_seqlens=None)
    padded = F.pad(x.double().transpose(1, 2), (3, 0))
    expected = F.silu(F.conv1d(padded, weight.double()[:, None], bias.double(), groups=2100)).transpose(1, 2)
    assert close(y, expected, 1e-6)


@pytest.mark.parametrize("width", [1, 2, 4, 7])
def test_any_cut_of_a_sequence_gives_the_same_bits(width):
    x, weight, state = draw((2, 150, 33), (33, width), (2, width - 1, 33))
    expected, final = causal_conv1d(x, weight, None, True, state, None)
    outputs = []
    for piece in x.split([1, 1, 2, 63, 5, 0, 78], dim=1):
        y, state = causal_conv1d(piece, weight, None, True, state, None)
        outputs.append(y)
    assert torch.equal(torch.cat(outputs, dim=1), expected)
    assert torch.equal(state, final)


def test_threads_do_not_change_a_bit():
    x, weight, bias, grad_y = draw((3, 333, 2100), (2100, 4), (2100,), (3, 333, 2100))
    args = (x, weight, bias, True, None, None)
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        found.append([*causal_conv1d(*args), *causal_conv1d_backward(grad_y, None, *args)])
    torch.set_num_threads(before)
    assert all(torch.equal(*pair) for other in found[1:] for pair in zip(found[0], other, strict=True))


def test_slices_of_a_wider_tensor_are_read_in_place():
    wide, weight, grad = draw((2, 60, 80), (40, 4), (2, 80, 60))
    check(wide[..., 40:], weight, None, False, None, None, (grad[..., :40, :].mT, None))
    check(wide[..., ::2], weight, None, False, None, None, (grad[:1, :1, :1].expand(2, 60, 40), None))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_inputs_are_computed_in_float32(dtype):
    x, state, grad_y = (tensor.to(dtype) for tensor in draw((2, 37, 40), (2, 3, 40), (2, 37, 40)))
    weight, bias = draw((40, 4), (40,), seed=1)
    args = (x, weight, bias, True, state, None)
    wide = (*double(*args[:5]), None)
    eps = torch.finfo(dtype).eps
    for found, expected in zip(causal_conv1d(*args), REFERENCE(*wide), strict=True):
        assert found.dtype is dtype
        assert close(found, expected, eps)
    found = causal_conv1d_backward(grad_y, None, *args)
    expected = GRADIENT(grad_y.double(), None, *wide)
    assert [grad.dtype for grad in found] == [dtype, torch.float32, torch.float32, dtype]
    assert all(close(*pair, eps) for pair in zip(found, expected, strict=True))
    assert all(close(*pair, 1e-6) for pair in zip(found[1:3], expected[1:3], strict=True))


def test_a_state_of_another_dtype_is_widened_to():
    x, state, weight = draw((1, 5, 8), (1, 3, 8), (8, 4))
    x = x.bfloat16()
    y, final = causal_conv1d(x, weight, None, False, state, None)
    expected, final_expected = REFERENCE(x, weight, None, False, state, None)
    assert torch.equal(y, expected)
    assert torch.equal(final, final_expected)


@pytest.mark.parametrize("scale", [0.0, 1e-42, 1e-30, 30.0, 1e4, 1e18])
def test_extreme_inputs_stay_as_exact(scale):
    x, weight, grad_y = draw((1, 70, 20), (20, 4), (1, 70, 20))
    check(x * scale, weight, None, True, None, None, (grad_y, None))


def test_a_nan_reaches_what_it_should_and_no_more():
    x, weight, state = draw((1, 9, 3), (3, 4), (1, 3, 3))
    x[0, 4, 1] = float("nan")
    y, _ = causal_conv1d(x, weight, None, True, state, None)
    expected = torch.zeros_like(y, dtype=torch.bool)
    expected[0, 4:8, 1] = True
    assert torch.equal(y.isnan(), expected)


EVERY_BFLOAT16 = torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.bfloat16)


@pytest.mark.parametrize("factor", [1.0, 0.99609375, 1 / 3])
def test_every_number_is_rounded_to_bfloat16_as_pytorch_does(factor):
    """Ties to even, to infinity where the sum is too large; what is no number stays none."""
    x, weight = EVERY_BFLOAT16.view(1, -1, 4), torch.full((4, 1), factor)
    y, _ = causal_conv1d(x, weight, None, False, None, None)
    expected = (x.float() * factor).bfloat16()
    normal = (x.abs() >= 2**-125) | (x == 0)  # products below that may be flushed
    same = (y == expected) | (y.isnan() & expected.isnan()) | ~normal
    assert same.all()


def test_silu_is_exact_over_its_whole_range():
    """To as much as a rounding of x, of which the exponential is taken, makes of the result."""
    x = EVERY_BFLOAT16.float()
    x = x[x.isfinite()].view(1, -1, 60)
    y, _ = causal_conv1d(x, torch.ones(60, 1), None, True, None, None)
    expected = F.silu(x.double())
    assert torch.where(x > -80, (y - expected).abs() <= 1e-5 * expected.abs() + 1e-37, y.abs() <= 1e-30).all()


def test_bounds_that_do_not_rise_are_refused():
    x, weight = draw((1, 4, 3), (3, 2))
    with pytest.raises(ArgumentError, match="cu_seqlens"):
        causal_conv1d(x, weight, None, False, None, torch.tensor([0, 3, 2, 4]))


def test_float64_is_left_to_the_next_backend():
    x, weight = double(*draw((1, 4, 3), (3, 2)))
    assert causal_conv1d(x, weight, None, False, None, None) is NotImplemented
    assert causal_conv1d_backward(x, None, x, weight, None, False, None, None) is NotImplemented
