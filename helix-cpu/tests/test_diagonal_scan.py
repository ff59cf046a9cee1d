"""The kernel of `diagonal_scan`: real or complex, any size, packed and streamed, on every instruction set."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

import helix_ssm.ops
from helix_cpu.ops.diagonal_scan import diagonal_scan, diagonal_scan_backward
from helix_kernel.errors import ArgumentError
from helix_kernel.ops import reference

REFERENCE, GRADIENT = reference("diagonal_scan"), reference("diagonal_scan_backward")
KINDS = [torch.float32, torch.complex64]
pytestmark = pytest.mark.usefixtures("isa")


def close(found, expected, tolerance):
    if not expected.numel():
        return found.shape == expected.shape
    wide = torch.promote_types(expected.dtype, torch.float64)
    scale = expected.to(wide).abs().max().clamp(min=1e-30)
    return ((found.to(wide) - expected.to(wide)).abs() <= tolerance * scale).all()


def wide(*tensors):
    return [
        None if each is None else each.to(torch.promote_types(each.dtype, torch.float64)) for each in tensors
    ]


def draw(dtype, *shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


def decays(a, constant):
    """Return factors that do not let rounding grow without bound: a constant one is at most 1 in size."""
    a = 0.7 * a
    return a / a.abs().clamp(min=1) if constant else a


def check(a, b, state, cu_seqlens, grads):
    """Compare results and gradients with the reference in double precision."""
    expected = REFERENCE(*wide(a, b, state), cu_seqlens)
    pairs = zip(diagonal_scan(a, b, state, cu_seqlens), expected, strict=True)
    assert all(close(*pair, 1e-6) for pair in pairs)
    expected = GRADIENT(*wide(*grads, a, b, state), cu_seqlens)
    pairs = zip(diagonal_scan_backward(*grads, a, b, state, cu_seqlens), expected, strict=True)
    # Sums over rows and steps: the reference's own rounding in float32 comes to half of this.
    assert all(close(*pair, 4e-6) for pair in pairs)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dtype=st.sampled_from(KINDS),
    batch_size=st.integers(0, 3),
    seq_len=st.integers(0, 70),
    d_model=st.integers(0, 70),
    constant=st.booleans(),
    state=st.booleans(),
    through=st.sampled_from(["h", "final state", "both"]),
    seed=st.integers(0, 9),
)
def test_any_size_agrees_with_the_reference(
    dtype, batch_size, seq_len, d_model, constant, state, through, seed
):
    rows, states = (batch_size, seq_len, d_model), (batch_size, d_model)
    a, b, first, grad_h, grad_final = draw(
        dtype, (d_model,) if constant else rows, rows, states, rows, states, seed=seed
    )
    grads = (grad_h if through != "final state" else None, grad_final if through != "h" else None)
    check(decays(a, constant), b, first if state else None, None, grads)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dtype=st.sampled_from(KINDS),
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    constant=st.booleans(),
)
def test_packed_sequences_agree_with_the_reference(dtype, lengths, constant):
    bounds = torch.tensor([0, *lengths]).cumsum(0)
    rows, states = (1, int(bounds[-1]), 19), (len(lengths), 19)
    a, b, first, *grads = draw(dtype, (19,) if constant else rows, rows, states, rows, states)
    check(decays(a, constant), b, first, bounds.int(), grads)


@pytest.mark.parametrize("dtype", KINDS)
def test_scipy_filters_the_same(dtype):
    a, b = draw(dtype, (3,), (1, 500, 3))
    a = 0.98 * a / a.abs()
    h, _ = diagonal_scan(a, b, None, None)
    for d in range(3):
        expected = lfilter([1.0], [1.0, -wide(a)[0][d].item()], wide(b)[0][0, :, d].numpy())
        assert close(h[0, :, d], torch.from_numpy(expected), 1e-6)


@pytest.mark.parametrize("dtype", KINDS)
def test_any_cut_of_a_sequence_gives_the_same_bits(dtype):
    a, b, state = draw(dtype, (2, 150, 33), (2, 150, 33), (2, 33))
    a = a * 0.7
    expected, final = diagonal_scan(a, b, state, None)
    outputs, cuts = [], [1, 1, 2, 63, 5, 0, 78]
    for factors, inputs in zip(a.split(cuts, dim=1), b.split(cuts, dim=1), strict=True):
        h, state = diagonal_scan(factors, inputs, state, None)
        outputs.append(h)
    assert torch.equal(torch.cat(outputs, dim=1), expected)
    assert torch.equal(state, final)


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("constant", [True, False])
def test_threads_do_not_change_a_bit(dtype, constant):
    a, b, grad = draw(dtype, (2100,) if constant else (3, 43, 2100), (3, 43, 2100), (3, 43, 2100))
    args = (a * 0.5, b, None, None)
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        found.append([*diagonal_scan(*args), *diagonal_scan_backward(grad, None, *args)])
    torch.set_num_threads(before)
    assert all(torch.equal(*pair) for other in found[1:] for pair in zip(found[0], other, strict=True))


@pytest.mark.parametrize("dtype", KINDS)
def test_slices_of_a_wider_tensor_are_read_in_place(dtype):
    both, grad = draw(dtype, (2, 20, 80), (2, 80, 20))
    check(both[..., :40], both[..., 40:], None, None, (grad[:, 40:].mT, None))
    check(both[:, :, ::2], both[..., 40:], None, None, (grad[:1, :1, :1].expand(2, 20, 40), None))
    check(both[:1, :, :40].expand(2, 20, 40), both[..., 40:], None, None, (grad[:, 40:].mT, None))


def test_conjugated_tensors_are_read_as_what_they_stand_for():
    a, b = draw(torch.complex64, (1, 9, 5), (1, 9, 5))
    expected = helix_ssm.ops.diagonal_scan(a.conj().resolve_conj(), b)
    with torch.no_grad():
        assert torch.equal(helix_ssm.ops.diagonal_scan(a.conj(), b), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("constant", [True, False])
def test_narrow_inputs_are_computed_in_float32(dtype, constant):
    a, b, grad = (each.to(dtype) for each in draw(torch.float32, (2, 37, 40), (2, 37, 40), (2, 37, 40)))
    a = a.clamp(-0.9, 0.9)[0, 0] if constant else a * 0.7
    state = torch.randn(2, 40)
    h, final = diagonal_scan(a, b, state, None)
    expected, final_expected = REFERENCE(*wide(a, b, state), None)
    eps = torch.finfo(dtype).eps
    assert (h.dtype, final.dtype) == (dtype, torch.float32)
    assert close(h, expected, eps)
    assert close(final, final_expected, 1e-6)
    found = diagonal_scan_backward(grad, None, a, b, state, None)
    assert [each.dtype for each in found] == [dtype, dtype, torch.float32]
    pairs = zip(found, GRADIENT(grad.double(), None, *wide(a, b, state), None), strict=True)
    assert all(close(*pair, eps) for pair in pairs)


def test_a_constant_factor_of_a_narrow_scan_stays_exact():
    (a, b), bf16 = draw(torch.float32, (40,), (2, 300, 40)), torch.bfloat16
    a = 1 - 1e-3 * a.abs()
    h, final = diagonal_scan(a, b.to(bf16), None, None)
    expected, final_expected = REFERENCE(a.double(), b.to(bf16).double(), None, None)
    assert h.dtype is bf16
    assert close(h, expected, torch.finfo(bf16).eps)
    assert close(final, final_expected, 1e-6)


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("scale", [0.0, 1e-42, 1e-30, 1.0, 3.0])
def test_extreme_factors_stay_as_exact(dtype, scale):
    a, b, grad = draw(dtype, (1, 40, 20), (1, 40, 20), (1, 40, 20))
    check(scale * a / a.abs(), b, None, None, (grad, None))


def test_a_nan_reaches_what_comes_after_it_and_no_other_channel():
    a, b = draw(torch.float32, (1, 9, 3), (1, 9, 3))
    b[0, 4, 1] = float("nan")
    expected = torch.zeros_like(b, dtype=torch.bool)
    expected[0, 4:, 1] = True
    assert torch.equal(diagonal_scan(a, b, None, None)[0].isnan(), expected)


def test_bounds_that_do_not_rise_are_refused():
    a, b = draw(torch.float32, (1, 4, 3), (1, 4, 3))
    with pytest.raises(ArgumentError, match="cu_seqlens"):
        diagonal_scan(a, b, None, torch.tensor([0, 3, 2, 4]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_double_precision_is_left_to_the_next_backend(dtype):
    a, b = draw(dtype, (1, 4, 3), (1, 4, 3))
    assert diagonal_scan(a, b, None, None) is NotImplemented
    assert diagonal_scan_backward(b, None, a, b, None, None) is NotImplemented
