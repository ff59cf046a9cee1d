"""The way past the dispatcher is for plain tensors on the CPU, and gives what the dispatcher gives."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import profile
from torch.utils._python_dispatch import TorchDispatchMode

from helix_kernel.backends import BackendSelector, Probe
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
        return x * 2

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
