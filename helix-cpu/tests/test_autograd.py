"""An implementation and its gradient behave as one differentiable function, as the op's contract has it."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from helix_cpu.autograd import Differentiable, SecondOrderError
from helix_cpu.transformers import kernels
from helix_kernel._gradients import Gradient
from helix_kernel.errors import HelixError

SEEN = {}


def scale_and_shift(x, factor, shift, double):
    """Compute (factor x + shift, its square) and save what the gradient needs: factor, doubled or not."""
    if x.dtype is torch.float16:
        return NotImplemented
    slope = 2 * factor if double else factor.clone()
    y = slope * x if shift is None else slope * x + shift
    return y, y * y, slope


def scale_and_shift_backward(grad_y, grad_square, slope, x, factor, shift, double):
    SEEN["grads"] = (grad_y, grad_square)
    y = slope * x if shift is None else slope * x + shift
    grad = torch.zeros_like(y) if grad_y is None else grad_y
    grad = grad if grad_square is None else grad + 2 * y * grad_square
    grad_factor = (grad * x).sum(0) * (2 if double else 1)
    return grad * slope, grad_factor, x.new_empty(0) if shift is None else grad.clone()


OP = Differentiable("toy", scale_and_shift, scale_and_shift_backward, leaves=(0, 1, 2), n_saved=1)


def arguments(*, shift=True, requires_grad=True, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    x, factor, bias = (
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_(requires_grad)
        for shape in ((4, 3), (3,), (4, 3))
    )
    return x, factor, bias if shift else None


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("double", [True, False])
def test_the_gradient_is_that_of_the_function(shift, double):
    def run(*tensors):
        return OP(*tensors, *(() if shift else (None,)), double)

    given = [tensor for tensor in arguments(shift=shift) if tensor is not None]
    assert torch.autograd.gradcheck(run, given)


@pytest.mark.parametrize("requires_grad", [True, False])
def test_saved_results_are_not_returned(requires_grad):
    results = OP(*arguments(requires_grad=requires_grad), False)
    assert len(results) == 2
    assert all(result.requires_grad is requires_grad for result in results)


@pytest.mark.parametrize("requires_grad", [True, False])
def test_what_the_implementation_declines_is_declined(requires_grad):
    assert OP(*arguments(requires_grad=requires_grad, dtype=torch.float16), False) is NotImplemented


def test_a_result_that_goes_unused_has_no_gradient():
    _, square = OP(*arguments(), False)
    square.sum().backward()
    assert SEEN["grads"][0] is None
    assert SEEN["grads"][1] is not None


def test_what_needs_no_gradient_gets_none():
    x, factor, bias = arguments()
    factor.requires_grad_(False)
    OP(x, factor, bias, False)[0].sum().backward()
    assert factor.grad is None
    assert x.grad is not None


def test_nothing_is_kept_where_gradients_are_off():
    with torch.no_grad():
        y, _ = OP(*arguments(), False)
    assert y.grad_fn is None


def test_under_activation_checkpointing():
    expected = arguments()
    OP(*expected, True)[1].sum().backward()
    given = arguments()
    checkpoint(lambda *tensors: OP(*tensors, True)[1].sum(), *given, use_reentrant=False).backward()
    assert all(torch.equal(mine.grad, other.grad) for mine, other in zip(given, expected, strict=True))


def test_a_graph_of_the_gradient_may_be_asked_for_but_not_followed():
    x, factor, bias = arguments()
    (grad,) = torch.autograd.grad(OP(x, factor, bias, False)[1].sum(), x, create_graph=True)
    assert grad.requires_grad
    with pytest.raises(SecondOrderError, match=r"'toy' cannot be differentiated again.*undo patch"):
        grad.sum().backward()


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
@pytest.mark.parametrize("requires_grad", [True, False])
def test_a_tangent_is_refused_and_not_dropped(requires_grad):
    x, factor, bias = arguments(requires_grad=requires_grad)
    with forward_ad.dual_level():
        with pytest.raises(NotImplementedError, match="forward mode AD"):
            OP(forward_ad.make_dual(x, torch.ones_like(x)), factor, bias, False)
        y, _ = OP(x, factor, bias, False)
    assert torch.equal(y, factor * x + bias)


def test_a_gradient_that_is_declined_is_an_error():
    op = Differentiable("half", lambda x: x.clone(), lambda *_: NotImplemented, leaves=(0,))
    with pytest.raises(HelixError, match="'half' was served forward but has no gradient"):
        op(torch.ones(1, requires_grad=True)).backward()


@pytest.mark.parametrize("name", ["CONVOLUTION", "SELECTIVE", "SSD", "GATED_DELTA", "RWKV7"])
def test_each_kernel_has_the_leaves_and_saved_results_of_its_contract(name):
    op = getattr(kernels, name)
    contract = importlib.import_module(f"helix_ssm.ops.{op.name}").op
    gradient = Gradient(contract.contract, contract.forward)
    assert op.leaves == gradient.leaves
    assert op.n_saved == len(contract.contract.saved)
    assert contract.contract.saved == gradient.outputs[len(gradient.outputs) - op.n_saved :]
