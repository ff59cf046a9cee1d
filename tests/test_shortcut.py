"""The way past the dispatcher is for plain tensors on the CPU, and gives what the dispatcher gives."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode
from torch.profiler import profile
from torch.utils._python_dispatch import TorchDispatchMode

from helix_kernel.backends import BackendSelector, Probe
from helix_kernel.errors import ArgumentError
from helix_kernel.ops import OpContract, Sample, define


class Doubling:
    """Serves the op as a kernel of another language does, which knows plain memory only."""

    device_type = "cpu"
    priority = 1

    def __init__(self):
        self.calls = []

    @property
    def ops(self):
        return {"test_shortcut": self.double}

    def double(self, x):
        self.calls.append(x.shape)
        assert not x.is_conj()
        assert not x.is_neg()
        return x.detach() * 2

    def probe(self):
        return Probe(available=True, reason="test")

    def memory(self, index=0):
        return None


class Listening(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


class Hearing(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


CHECKED = []


def check(x):
    CHECKED.append(x.shape)
    if x.dim() != 1:
        raise ArgumentError("x has other dimensions than one")


@pytest.fixture(scope="module")
def op():
    return define(
        OpContract(
            name="test_shortcut",
            schema="(Tensor x) -> (Tensor y)",
            reference=lambda x: x * 2,
            fake=torch.empty_like,
            samples=lambda: [Sample("plain", (torch.ones(2),))],
            flops=lambda x: x.numel(),
            check=check,
        )
    )


@pytest.fixture
def backend():
    backend = Doubling()
    with BackendSelector({"doubling": backend}).using(["doubling"]):
        yield backend


@pytest.fixture
def dispatched(op, monkeypatch):
    """Count the calls that go through the dispatcher."""
    calls = []
    way = op._below_autograd
    monkeypatch.setattr(way, "_overload", lambda *args: (calls.append(1), op.forward(*args))[1])
    return calls


def test_a_plain_tensor_goes_straight_to_the_kernel(op, backend, dispatched):
    x = torch.ones(3, requires_grad=True)
    assert torch.equal(op(x), 2 * x)
    assert torch.equal(op(x.detach()), 2 * x)
    assert (len(backend.calls), len(dispatched)) == (2, 0)


def test_without_a_backend_the_dispatcher_decides(op, dispatched):
    assert torch.equal(op(torch.ones(2)), torch.full((2,), 2.0))
    assert len(dispatched) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda z: z.conj(),
        lambda z: z.conj().imag,
        lambda z: torch._efficientzerotensor(z.shape),
    ],
    ids=["conjugated", "negated", "zeros"],
)
def test_a_lazy_tensor_is_made_plain_by_the_dispatcher(op, backend, dispatched, make):
    x = make(torch.tensor([1 + 2j, 3 - 1j]))
    assert torch.equal(op(x), 2 * x.resolve_conj().resolve_neg())
    assert (len(backend.calls), len(dispatched)) == (1, 1)


@pytest.mark.usefixtures("backend")
def test_a_mode_hears_of_the_call(op):
    with Listening() as mode:
        op(torch.ones(2))
    assert "helix.test_shortcut.default" in mode.seen


@pytest.mark.usefixtures("backend")
def test_the_profiler_sees_the_op(op):
    with profile() as profiler:
        op(torch.ones(2))
    assert any(event.name == "helix::test_shortcut" for event in profiler.events())


def test_a_fake_tensor_reaches_no_kernel(op, backend):
    with FakeTensorMode():
        x = torch.ones(2)
    assert op(x).shape == (2,)
    assert not backend.calls


def test_inference_tensors_take_the_short_way_too(op, backend, dispatched):
    with torch.inference_mode():
        assert torch.equal(op(torch.ones(2)), torch.full((2,), 2.0))
    assert (len(backend.calls), len(dispatched)) == (1, 0)


def test_autocast_goes_by_the_dispatcher(op, backend, dispatched):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        op(torch.ones(2))
    assert (len(backend.calls), len(dispatched)) == (1, 1)


def test_a_call_like_one_before_is_not_checked_again(op, backend, dispatched):
    op(torch.ones(5))
    CHECKED.clear()
    assert torch.equal(op(torch.full((5,), 3.0)), torch.full((5,), 6.0))
    assert (CHECKED, len(dispatched)) == ([], 0)
    with pytest.raises(ArgumentError, match="other dimensions"):
        op(torch.ones(5, 1))
    assert backend.calls == [(5,), (5,)]


@pytest.mark.usefixtures("backend")
def test_arguments_are_checked_whichever_way_a_call_takes(op):
    for x in (torch.ones(2, 2), torch.ones(2, 2, requires_grad=True)):
        with pytest.raises(ArgumentError, match="other dimensions"):
            op(x)
    with pytest.raises(ArgumentError, match="other dimensions"):
        torch.func.vmap(op)(torch.ones(2, 2, 2))


@pytest.mark.parametrize("before", [torch.no_grad, torch.enable_grad])
def test_a_call_remembered_without_a_gradient_has_one_where_it_is_needed(op, backend, before):
    x = torch.ones(6, requires_grad=True)
    with before():
        op(x.detach())
    with torch.no_grad():
        assert not op(x).requires_grad
    op(x).sum().backward()
    assert torch.equal(x.grad, torch.full((6,), 2.0))


@pytest.mark.parametrize(
    "enter",
    [Hearing, Listening, profile, lambda: torch.autocast("cpu", dtype=torch.bfloat16)],
    ids=["function-mode", "dispatch-mode", "profiler", "autocast"],
)
def test_a_call_remembered_is_heard_of_by_who_begins_to_listen(op, backend, dispatched, enter):
    op(torch.ones(7))
    with enter():
        op(torch.ones(7))
    assert len(dispatched) == 1


@pytest.mark.usefixtures("dispatched")
def test_a_call_remembered_goes_where_the_selection_in_force_says(op, backend):
    op(torch.ones(8))
    other = Doubling()
    with BackendSelector({"other": other}).using(["other"]):
        op(torch.ones(8))
    with BackendSelector({"other": other}).using(["reference"]):
        op(torch.ones(8))
    assert (len(backend.calls), len(other.calls)) == (1, 1)


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.*:DeprecationWarning")
@pytest.mark.usefixtures("backend")
def test_a_trace_holds_the_op_and_not_what_its_kernel_did(op):
    op(torch.ones(9))
    traced = torch.jit.trace(lambda x: op(x), (torch.ones(9),), check_trace=False)  # noqa: PLW0108 - it wants a name
    assert "helix::test_shortcut" in str(traced.graph)
    assert torch.equal(traced(torch.arange(9.0)), 2 * torch.arange(9.0))


FORWARD_MODE = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")


@FORWARD_MODE
@pytest.mark.parametrize("served", [True, False])
@pytest.mark.parametrize("requires_grad", [True, False])
def test_a_tangent_is_refused_and_not_dropped(op, served, requires_grad, request):
    if served:
        request.getfixturevalue("backend")
    x = torch.ones(10, requires_grad=requires_grad)
    op(x)
    with forward_ad.dual_level():
        with pytest.raises(NotImplementedError, match="forward mode AD"):
            op(forward_ad.make_dual(x, torch.ones(10)))
        assert torch.equal(op(x), torch.full((10,), 2.0))


@FORWARD_MODE
@pytest.mark.usefixtures("backend")
def test_the_transform_of_forward_mode_is_refused_too(op):
    with pytest.raises(NotImplementedError, match="forward mode AD"):
        torch.func.jvp(op, (torch.ones(10),), (torch.ones(10),))
