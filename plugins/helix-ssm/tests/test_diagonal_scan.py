from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import scipy.signal
import torch

from helix_kernel.backends import BackendSelector
from helix_kernel.errors import ArgumentError
from helix_kernel.ops import defined
from helix_kernel.testing.ops import OpSuite
from helix_ssm.ops import diagonal_scan
from helix_ssm.ops.chunked import ChunkedBackend

KINDS = [torch.float64, torch.complex128]


def draw(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)), dtype=dtype)


def factors(*shape, dtype=torch.float64):
    a = draw(*shape, dtype=dtype, seed=1)
    return a / (1 + a.abs())


@pytest.fixture(params=["reference", "torch-chunked"])
def _each_backend(request):
    with BackendSelector({"torch-chunked": ChunkedBackend()}).using([request.param]):
        yield


@pytest.mark.usefixtures("_each_backend")
@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("seq_len", [1, 2, 15, 16, 17, 50, 64])
def test_it_solves_the_bidiagonal_system(seq_len, dtype):
    """h - S h = b, where S has a_t below its diagonal and the initial state adds a_1 h_0 to b_1."""
    a, b, h0 = factors(2, seq_len, 3, dtype=dtype), draw(2, seq_len, 3, dtype=dtype), draw(2, 3, dtype=dtype)
    h, final_state = diagonal_scan(a, b, initial_state=h0, return_final_state=True)
    for row in range(2):
        for channel in range(3):
            factor, x = a[row, :, channel].numpy(), b[row, :, channel].numpy().copy()
            x[0] += factor[0] * h0[row, channel].item()
            expected = np.linalg.solve(np.eye(seq_len) - np.diag(factor[1:], -1), x)
            np.testing.assert_allclose(h[row, :, channel].numpy(), expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(final_state, h[:, -1])


@pytest.mark.usefixtures("_each_backend")
@pytest.mark.parametrize("dtype", KINDS)
def test_factors_that_are_the_same_at_each_step_make_scipys_filter(dtype):
    a, b = factors(3, dtype=dtype), draw(2, 50, 3, dtype=dtype)
    h = diagonal_scan(a, b)
    for channel in range(3):
        expected = scipy.signal.lfilter([1], [1, -a[channel].item()], b[..., channel].numpy(), axis=1)
        np.testing.assert_allclose(h[..., channel].numpy(), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(h, diagonal_scan(a.expand(b.shape), b))


@pytest.mark.usefixtures("_each_backend")
def test_factors_may_vanish_and_their_products_underflow():
    a = torch.full((1, 100, 4), 0.5)
    a[..., 1], a[..., 2], a[:, 50, 3] = 0.0, 1e-38, 0.0
    a.requires_grad_()
    b = draw(1, 100, 4, dtype=torch.float32).requires_grad_()
    h = diagonal_scan(a, b)
    h.sum().backward()
    assert torch.equal(h[..., 1:3], b[..., 1:3])
    assert torch.equal(h[:, 50, 3], b[:, 50, 3])
    assert a.grad.isfinite().all()
    assert torch.equal(b.grad[..., 1], torch.ones(1, 100))


@pytest.mark.usefixtures("_each_backend")
@pytest.mark.parametrize("dtype", KINDS)
def test_it_goes_on_from_its_final_state(dtype):
    a, b = factors(2, 60, 3, dtype=dtype), draw(2, 60, 3, dtype=dtype)
    whole, last = diagonal_scan(a, b, return_final_state=True)
    state, parts = None, []
    for own_a, own_b in zip(a.split([0, 1, 19, 40], 1), b.split([0, 1, 19, 40], 1), strict=True):
        h, state = diagonal_scan(own_a, own_b, initial_state=state, return_final_state=True)
        parts.append(h)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)
    torch.testing.assert_close(state, last)


@pytest.mark.usefixtures("_each_backend")
@pytest.mark.parametrize("constant", [False, True])
def test_packed_scans_are_those_of_each_sequence(constant):
    bounds = [0, 1, 1, 40, 60]
    a, b, h0 = factors(3) if constant else factors(1, 60, 3), draw(1, 60, 3), draw(4, 3)
    packed, states = diagonal_scan(
        a, b, initial_state=h0, return_final_state=True, cu_seqlens=torch.tensor(bounds)
    )
    for i, (start, end) in enumerate(pairwise(bounds)):
        own = a if constant else a[:, start:end]
        h, state = diagonal_scan(own, b[:, start:end], initial_state=h0[i : i + 1], return_final_state=True)
        torch.testing.assert_close(packed[:, start:end], h)
        torch.testing.assert_close(states[i : i + 1], state)


@pytest.mark.usefixtures("_each_backend")
def test_bfloat16_is_computed_in_float32():
    a, b = factors(1, 30, 2).bfloat16(), draw(1, 30, 2).bfloat16()
    h, state = diagonal_scan(a, b, return_final_state=True)
    assert (h.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(h, diagonal_scan(a.float(), b.float()).bfloat16())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": draw(2, 20)}, r"b has shape \(2, 20\), allowed is \(any, any, any\)"),
        ({"a": draw(2, 19, 4)}, r"a has shape \(2, 19, 4\), allowed is \(2, 20, 4\)"),
        ({"a": draw(3)}, r"a has shape \(3,\), allowed is \(4\)"),
        ({"a": draw(4, dtype=torch.complex128)}, "allowed is both real or both complex"),
        ({"initial_state": draw(2, 4, dtype=torch.complex128)}, "initial_state has dtype torch.complex128"),
        ({"initial_state": draw(1, 4)}, r"initial_state has shape \(1, 4\), allowed is \(2, 4\)"),
        (
            {"a": torch.ones(4, dtype=torch.int64)},
            "a has dtype torch.int64, allowed is a floating or complex",
        ),
        ({"cu_seqlens": torch.tensor([0, 20])}, "the batch size is 2"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(ArgumentError, match=message):
        diagonal_scan(**{"a": factors(2, 20, 4), "b": draw(2, 20, 4), **change})


def without_conjugate(*args):
    """The gradient of a real scan, which is wrong for a complex one."""
    grads = ChunkedBackend.ops["diagonal_scan_backward"](*args)
    return grads[0].conj().resolve_conj(), *grads[1:]


class Unconjugated(ChunkedBackend):
    ops = {"diagonal_scan_backward": without_conjugate}  # noqa: RUF012 - a planted fault


@pytest.mark.parametrize("kind", ["real", "complex"])
def test_the_suite_compares_gradients_of_complex_samples(kind):
    op = defined()["diagonal_scan"]
    samples = [s for s in op.contract.samples() if s.args[0].is_complex() == (kind == "complex")]
    with BackendSelector({"wrong": Unconjugated()}).using(["wrong"]):
        if kind == "real":
            OpSuite().test_gradients_agree_with_the_reference(op, samples, "float64")
            return
        with pytest.raises(AssertionError, match="'complex-plain': tensor 0 differs"):
            OpSuite().test_gradients_agree_with_the_reference(op, samples, "float64")
        with pytest.raises(RuntimeError, match="Jacobian"):
            OpSuite().test_gradients_agree_with_finite_differences(op, samples)
