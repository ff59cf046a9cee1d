"""An op contract becomes an operator of PyTorch, with its gradient, by either way of calling it."""

from __future__ import annotations

import pytest
import torch

from helix_kernel.errors import ArgumentError, UnknownNameError
from helix_kernel.ops import OpContract, Sample, define, defined, reference


def scale_shift(x, weight, offset, index, power):
    """y = weight x^power (+ offset), and x squared for the gradient."""
    y = weight * x.pow(power)
    return y if offset is None else y + offset, x.square()


def contract(name="test_scale_shift", **changes):
    fields = {
        "schema": (
            "(Tensor x, Tensor weight, Tensor? offset, Tensor? index, int power)"
            " -> (Tensor y, Tensor squares)"
        ),
        "reference": scale_shift,
        "fake": lambda x, *_: (torch.empty_like(x), torch.empty_like(x)),
        "samples": lambda: [Sample("plain", (torch.ones(2), torch.ones(2), None, None, 2))],
        "flops": lambda x, *_: 3 * x.numel(),
        "saved": ("squares",),
        "constants": ("index",),
    }
    return OpContract(name=name, **{**fields, **changes})


@pytest.fixture(scope="module")
def op():
    return define(contract())


@pytest.fixture
def arguments():
    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([2.0, 0.5, 1.0], dtype=torch.float64, requires_grad=True)
    return x, weight, None, torch.tensor([0]), 3


@pytest.fixture
def outside_the_table(monkeypatch):
    """Let a test define ops that the others do not see."""
    monkeypatch.setattr("helix_kernel.ops._DEFINED", dict(defined()))


def test_it_is_found_where_pytorch_keeps_operators(op):
    assert torch.ops.helix.test_scale_shift.default is op.forward
    assert torch.ops.helix.test_scale_shift_backward.default is op.backward
    assert defined()["test_scale_shift"] is op


@pytest.mark.parametrize("way", ["short", "registered"])
def test_the_gradient_is_that_of_the_reference(op, arguments, way):
    call = op if way == "short" else op.forward
    y, squares = call(*arguments)
    y.sum().backward()
    x, weight = arguments[:2]
    torch.testing.assert_close(x.grad, 3 * weight.detach() * x.detach() ** 2)
    torch.testing.assert_close(weight.grad, x.detach() ** 3)
    assert not squares.requires_grad


def test_a_backward_that_is_given_is_called_with_gradients_saved_results_and_arguments(outside_the_table):
    calls = []

    def backward(*args):
        calls.append(args)
        return args[2].clone(), args[3].clone(), args[2].new_empty(0)

    op = define(contract("test_given_backward", backward=backward))
    x = torch.tensor([3.0], requires_grad=True)
    y, _ = op(x, torch.tensor([2.0]), None, None, 2)
    y.backward(torch.tensor([5.0]))
    ((grad_y, saved, *rest),) = calls
    assert (grad_y.item(), saved.item()) == (5.0, 9.0)
    assert [rest[0].item(), rest[1].item(), *rest[2:]] == [3.0, 2.0, None, None, 2]
    assert x.grad.item() == 3.0


def test_no_gradient_means_no_autograd_function(op, arguments):
    with torch.no_grad():
        assert not op(*arguments)[0].requires_grad
    detached = [a.detach() if isinstance(a, torch.Tensor) else a for a in arguments]
    assert op(*detached)[0].grad_fn is None
    assert op(*arguments)[0].grad_fn is not None


def test_a_second_derivative_is_refused_rather_than_wrong(op, arguments):
    y, _ = op(*arguments)
    (grad,) = torch.autograd.grad(y.sum(), arguments[0], create_graph=True)
    with pytest.raises(NotImplementedError, match="test_scale_shift has no second derivative"):
        (grad.sum() + arguments[0].sum()).backward()


def test_functional_gradients_work(op, arguments):
    x, weight, *rest = (a.detach() if isinstance(a, torch.Tensor) else a for a in arguments)
    found = torch.func.grad(lambda x: op(x, weight, *rest)[0].sum())(x)
    torch.testing.assert_close(found, 3 * weight * x**2)


@pytest.mark.parametrize("way", ["short", "registered"])
def test_autocast_does_not_reach_into_a_kernel(outside_the_table, way):
    seen = []

    def multiply(x, weight):
        seen.append((x @ weight).dtype)
        return x @ weight

    op = define(
        contract(
            f"test_autocast_{way}",
            schema="(Tensor x, Tensor weight) -> (Tensor y)",
            reference=multiply,
            fake=lambda x, weight: x @ weight,
            saved=(),
            constants=(),
        )
    )
    x = torch.ones(2, 2, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = (op if way == "short" else op.forward)(x, torch.ones(2, 2))
    assert (y.dtype, seen[0]) == (torch.float32, torch.float32)


def test_it_compiles_into_one_graph(op, arguments):
    compiled = torch.compile(lambda *args: op(*args)[0] * 2, fullgraph=True, backend="aot_eager")
    compiled(*arguments).sum().backward()
    found = arguments[0].grad.clone()
    arguments[0].grad = None
    (op(*arguments)[0] * 2).sum().backward()
    assert torch.equal(found, arguments[0].grad)


def test_flops_of_the_gradient_are_twice_the_forwards_where_not_given(op, arguments):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        op(*arguments)[0].sum().backward()
    assert counter.get_total_flops() == 9 + 18


def test_references_are_found_by_name(op):
    assert reference("test_scale_shift") is scale_shift
    assert callable(reference("test_scale_shift_backward"))
    with pytest.raises(UnknownNameError, match="Did you mean 'test_scale_shift'"):
        reference("test_scale_shifted")


def test_a_name_is_defined_once(op):
    with pytest.raises(ArgumentError, match="'test_scale_shift' is defined already"):
        define(contract())


@pytest.mark.parametrize("schema", ["(Tensor x, int power=2) -> (Tensor y)", "(Tensor x)"])
def test_a_schema_that_would_mislead_is_refused(schema):
    with pytest.raises(ArgumentError, match="must read"):
        contract(schema=schema)


def test_a_backend_may_leave_its_gradient_to_autograd(op, arguments):
    x, weight = (argument.detach() for argument in arguments[:2])
    given = (torch.randn_like(x), x.square(), x, weight, *arguments[2:])
    implementation = op.gradient_of(scale_shift)
    for found, expected in zip(implementation(*given), op.backward(*given), strict=True):
        torch.testing.assert_close(found, expected)
    assert op.gradient_of(lambda *_: NotImplemented)(*given) is NotImplemented
