"""The kernel of `long_conv`: directly, by one transform and by many, on every instruction set."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.signal import oaconvolve

import helix_ssm.ops  # noqa: F401 - defines the contract
from helix_cpu.ops.long_conv import long_conv, long_conv_backward
from helix_kernel.ops import reference

REFERENCE, GRADIENT = reference("long_conv"), reference("long_conv_backward")
pytestmark = pytest.mark.usefixtures("isa")

# B, L, D, lags. A transform is first split into 4, 5, 6 or 7: lengths just below 4 to 7 times 2^k take
# each. Fewer lags than steps cut a row into segments, or fill the second half of one window.
BY_TRANSFORM = [
    (1, 2047, 3, 2047),
    (2, 2560, 5, 2560),
    (1, 3071, 17, 3071),
    (3, 3500, 2, 3500),
    (1, 5000, 4, 9000),
    (2, 6000, 3, 3900),
    (2, 9001, 5, 700),
    (1, 20000, 2, 300),
    (1, 40000, 1, 40000),
]


def close(found, expected, tolerance, least=1e-30):
    scale = expected.double().abs().max().clamp(min=least) if expected.numel() else 1.0
    return ((found.double() - expected.double()).abs() <= tolerance * scale).all()


def double(*tensors):
    return [None if tensor is None else tensor.double() for tensor in tensors]


def draw(*shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def arguments(batch_size, seq_len, d_model, n_lags, seed=0):
    """Draw grad_y, x, kernel and D."""
    x = (batch_size, seq_len, d_model)
    return draw(x, x, (d_model, n_lags), (d_model,), seed=seed)


def convolve(x, kernel):
    """Convolve (B, L, D) with (D, K) by scipy, in float64, and keep the first L."""
    taps = kernel.double().T.unsqueeze(0).numpy()
    return torch.from_numpy(oaconvolve(x.double().numpy(), taps, axes=1)[:, : x.shape[1]])


def correlate(x, kernel):
    """The transpose of `convolve`: turn time round before and after."""
    return convolve(x.flip(1), kernel).flip(1)


def gradients(grad, x, kernel, D):
    """The gradients of x, the kernel and D by scipy, in float64."""
    n_lags = min(kernel.shape[1], x.shape[1])
    grad_kernel = torch.zeros(kernel.shape, dtype=torch.float64)
    for row, grad_row in zip(x, grad, strict=True):  # lag j of x meeting grad is output j of x turned round
        products = correlate(grad_row.unsqueeze(0), row.flip(0).T.contiguous().flip(1))
        grad_kernel[:, :n_lags] += products[0, :n_lags].T
    grad_x = correlate(grad, kernel[:, :n_lags]) + grad.double() * D.double()
    return grad_x, grad_kernel, (grad.double() * x.double()).sum((0, 1))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batch_size=st.integers(0, 3),
    seq_len=st.integers(0, 70),
    d_model=st.integers(0, 40),
    n_lags=st.integers(0, 75),
    skip=st.booleans(),
    seed=st.integers(0, 9),
)
def test_any_size_agrees_with_the_reference(batch_size, seq_len, d_model, n_lags, skip, seed):
    grad, x, kernel, D = arguments(batch_size, seq_len, d_model, n_lags, seed)
    args = (x, kernel, D if skip else None)
    least = max(n_lags, 1)  # what the terms of a sum come to, where they happen to cancel in all of it
    assert close(long_conv(*args), REFERENCE(*double(*args)), 1e-6, least)
    found, expected = long_conv_backward(grad, *args), GRADIENT(*double(grad, *args))
    least = max(least, (batch_size * seq_len) ** 0.5)  # the gradient of D sums over rows and steps
    assert all(close(*pair, 1e-6, least) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("seq_len", [1, 2, 3, 5, 7, 15, 17, 31, 33, 63, 65])
@pytest.mark.parametrize("d_model", [1, 17])
def test_short_sequences_agree_with_scipy_to_the_last_step(seq_len, d_model):
    _, x, kernel, D = arguments(2, seq_len, d_model, seq_len)
    assert close(long_conv(x, kernel, D), convolve(x, kernel) + x.double() * D.double(), 1e-6)


@pytest.mark.parametrize("shape", BY_TRANSFORM, ids=str)
def test_long_sequences_agree_with_scipy(shape):
    grad, x, kernel, D = arguments(*shape)
    expected = convolve(x, kernel) + x.double() * D.double()
    assert close(long_conv(x, kernel, D), expected, 1e-6)
    found = long_conv_backward(grad, x, kernel, D)
    assert all(close(*pair, 2e-6) for pair in zip(found, gradients(grad, x, kernel, D), strict=True))


@pytest.mark.parametrize("n_lags", [1, 31, 33, 100, 257, 600])
def test_any_number_of_lags_agrees_with_scipy(n_lags):
    grad, x, kernel, D = arguments(2, 1500, 9, n_lags)
    assert close(long_conv(x, kernel, None), convolve(x, kernel), 1e-6)
    found = long_conv_backward(grad, x, kernel, D)
    assert all(close(*pair, 2e-6) for pair in zip(found, gradients(grad, x, kernel, D), strict=True))


@pytest.mark.parametrize("shape", [(3, 50, 70, 50), (2, 3000, 70, 3000), (2, 5000, 33, 400)], ids=str)
def test_the_number_of_threads_changes_no_bit(shape):
    grad, *args = arguments(*shape)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results.append([long_conv(*args), *long_conv_backward(grad, *args)])
    torch.set_num_threads(before)
    assert all(one.equal(other) for one, other in zip(*results, strict=True))


def test_threads_that_ask_for_many_lengths_at_once_get_their_own():
    cases = [arguments(1, seq_len, 1, seq_len) for seq_len in range(2100, 22000, 500)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda case: long_conv(case[1], case[2], None), cases))
    for y, (_, x, kernel, _) in zip(found, cases, strict=True):
        assert close(y, convolve(x, kernel), 1e-6)


@pytest.mark.parametrize("shape", [(2, 40, 5, 40), (2, 2100, 5, 2100), (1, 5000, 5, 300)], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_inputs_are_computed_in_float32(dtype, shape):
    grad, x, kernel, D = (tensor.to(dtype) for tensor in arguments(*shape))
    y = long_conv(x, kernel, D)
    assert y.dtype is dtype
    assert close(y, convolve(x, kernel) + x.double() * D.double(), torch.finfo(dtype).eps)
    found, expected = long_conv_backward(grad, x, kernel, D), gradients(grad, x, kernel, D)
    assert all(tensor.dtype is dtype for tensor in found)
    assert all(close(*pair, torch.finfo(dtype).eps) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("seq_len", [20, 2100])
def test_arguments_may_have_any_strides(seq_len):
    grad, x, kernel, D = arguments(2, seq_len, 6, seq_len)
    turned = x.transpose(0, 1).contiguous().transpose(0, 1)
    columns = x.transpose(1, 2).contiguous().transpose(1, 2)
    wide = torch.full((6, 2 * seq_len), float("nan"))
    wide[:, :seq_len] = kernel
    expected = long_conv(x, kernel, D)
    for inputs in (turned, columns, x.repeat(1, 1, 2)[..., :6]):
        assert long_conv(inputs, wide[:, :seq_len], D).equal(expected)
        found = long_conv_backward(grad[:1].expand(2, -1, -1), inputs, wide[:, :seq_len], D)
        dense = long_conv_backward(grad[:1].expand(2, -1, -1).contiguous(), x, kernel, D)
        assert all(one.equal(other) for one, other in zip(found, dense, strict=True))


@pytest.mark.parametrize("shape", [(1, 30, 5, 30), (2, 2100, 19, 2100), (1, 5000, 3, 300)], ids=str)
def test_memory_that_nobody_wrote_is_not_read(shape):
    grad, *args = arguments(*shape)
    expected = [long_conv(*args), *long_conv_backward(grad, *args)]
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    try:
        found = [long_conv(*args), *long_conv_backward(grad, *args)]
    finally:
        torch.use_deterministic_algorithms(mode=False)
    assert all(one.equal(other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("scale", [0.0, 1e-40, 1e-18, 1e15])
@pytest.mark.parametrize("seq_len", [40, 2100])
def test_extreme_inputs_are_as_exact_as_others(seq_len, scale):
    grad, x, kernel, _ = arguments(1, seq_len, 3, seq_len)
    x = x * scale
    assert close(long_conv(x, kernel, None), convolve(x, kernel), 1e-6, least=1e-36)
    found = long_conv_backward(grad, x, kernel, None)
    expected = gradients(grad, x, kernel, torch.zeros(3))[:2]
    assert all(close(*pair, 2e-6, least=1e-36) for pair in zip(found[:2], expected, strict=True))


def test_lags_beyond_the_sequence_have_no_gradient():
    grad, x, kernel, D = arguments(1, 2100, 2, 2200)
    kernel[:, 2100:] = float("nan")
    _, grad_kernel, _ = long_conv_backward(grad, x, kernel, D)
    assert (grad_kernel[:, 2100:] == 0).all()
    assert grad_kernel.isfinite().all()


def test_a_result_without_a_gradient_gives_zeros():
    _, x, kernel, D = arguments(2, 5, 3, 5)
    found = long_conv_backward(None, x, kernel, D)
    assert [tensor.shape for tensor in found] == [x.shape, kernel.shape, D.shape]
    assert not any(tensor.any() for tensor in found)


def test_float64_is_left_to_the_next_backend():
    x, kernel = torch.ones(1, 4, 2, dtype=torch.float64), torch.ones(2, 4)
    assert long_conv(x, kernel, None) is NotImplemented
    assert long_conv_backward(x, x, kernel, None) is NotImplemented
