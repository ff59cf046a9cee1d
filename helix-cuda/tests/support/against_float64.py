"""An op's results and gradients as its kernels compute them, held to its reference in float64."""

from __future__ import annotations

import torch

ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11, torch.complex64: 1e-6}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def with_gradients(op, case, through=None):
    """Call an op with a case, its arguments by name.

    The gradient comes through the results numbered `through`, all if left out, and is the same whatever the
    dtypes.

    Returns:
        The results, and the gradient of each tensor of numbers in the order of the case.
    """
    leaves = {name: value.detach().requires_grad_() for name, value in case.items() if is_inexact(value)}
    results = op(**case | leaves)
    results = results if isinstance(results, tuple) else (results,)
    generator = torch.Generator().manual_seed(1)
    grads = [_draw(result, generator) for result in results]
    chosen = range(len(results)) if through is None else through
    torch.autograd.backward([results[i] for i in chosen], [grads[i] for i in chosen])
    return [*(result.detach() for result in results), *(leaf.grad for leaf in leaves.values())]


def exact(op, case, through=None):
    """Return what `with_gradients` does, in float64, which kernels leave to the reference."""
    return with_gradients(op, widened(case), through)


def assert_exact(op, case, tolerance=1e-5, *, through=None, floor=1.0):
    """Hold an op to its reference, as `assert_close` has it, and return what the kernels gave."""
    found = with_gradients(op, case, through)
    assert_close(found, exact(op, case, through), tolerance, floor=floor)
    return found


def assert_close(found, expected, tolerance, *, floor=1.0):
    """Hold each tensor to the expected one, in parts of that one's largest element or of the floor.

    With inputs of the size of 1, a gradient of a single channel is a difference of near equals: it may be
    off by their rounding.
    """
    for one, other in zip(found, expected, strict=True):
        if other is None:
            assert one is None or not one.any()
            continue
        assert one.shape == other.shape
        if other.numel():
            assert (_wide(one) - other).abs().max() <= tolerance * max(other.abs().max(), floor)


def assert_repeats(op, case, times=1):
    """Call again, and want the same bits."""
    first = with_gradients(op, case)
    for _ in range(times):
        for one, other in zip(with_gradients(op, case), first, strict=True):
            assert torch.equal(one, other)


def is_inexact(value):
    """Whether a value is a tensor of floating or complex numbers, which has a gradient."""
    return torch.is_tensor(value) and (value.is_floating_point() or value.is_complex())


def widened(case):
    """Return a case in double precision."""
    return {name: _wide(value) if is_inexact(value) else value for name, value in case.items()}


def _wide(tensor):
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def _draw(result, generator):
    """Draw numbers that every dtype holds."""
    if result.is_complex():
        parts = torch.randn((*result.shape, 2), generator=generator).bfloat16()
        return torch.view_as_complex(parts.float()).to(result)
    return torch.randn(result.shape, generator=generator).bfloat16().to(result)
