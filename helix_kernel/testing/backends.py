"""The conformance suite of backends: what every backend must do, and each op that it serves.

Subclass `BackendSuite`, give it a backend, and pytest runs the rest::

    class TestMyBackend(BackendSuite):
        def make_backend(self):
            return MyBackend()
"""

from __future__ import annotations

import inspect
import itertools
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from helix_kernel import default_kernel
from helix_kernel.backends import ANY_DEVICE, BackendSelector, Memory, Probe
from helix_kernel.ops import defined
from helix_kernel.targets import load_target
from helix_kernel.testing.ops import DTYPES, OpSuite, gradients_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from helix_kernel.backends import Backend
    from helix_kernel.ops import Op, Sample

_NAME = "under-test"


class BackendSuite(OpSuite):
    """Pytest class of the backend protocol: what it says of itself, and every case of `OpSuite` for each op.

    The contracts of the ops are those that the installed plugins offer. Where the machine lacks what the
    backend needs, the cases that run it are left out.
    """

    def make_backend(self) -> Backend:
        """Return the backend under test."""
        backend: Backend = self.build()
        return backend

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each case of an op for every op that the backend implements."""
        if "op" in metafunc.fixturenames:
            metafunc.parametrize("op", self._ops_here(), indirect=True)

    @pytest.fixture(name="op")
    def fixture_op(self, request: pytest.FixtureRequest) -> Iterator[Op]:
        """Return the op under test, served by the backend."""
        backend = self.make_backend()
        self._define_ops()
        self.device = "cpu" if backend.device_type == ANY_DEVICE else backend.device_type
        with BackendSelector({_NAME: backend}).using([_NAME]):
            yield defined()[request.param]

    def test_it_says_where_and_when_it_serves(self) -> None:
        import torch

        backend = self.make_backend()
        see = self._see_backend("backend.device_type, backend.priority")
        if backend.device_type != ANY_DEVICE:
            try:
                torch.device(backend.device_type)
            except RuntimeError as error:
                raise AssertionError(
                    f"device_type is {backend.device_type!r}, allowed is 'any' or one of torch: {error}{see}"
                ) from error
        assert type(backend.priority) is int, f"priority is {backend.priority!r}, allowed is an int{see}"

    def test_probe_answers_and_gives_a_reason(self) -> None:
        see = self._see_backend("backend.probe()")
        try:
            probe = self.make_backend().probe()
        except Exception as error:
            raise AssertionError(
                f"probe raises {type(error).__name__}: {error}; it must return Probe(False, reason){see}"
            ) from error
        assert isinstance(probe, Probe), f"probe() gives {probe!r}, allowed is a Probe{see}"
        assert probe.reason.strip(), f"probe() gives no reason, which `helix doctor` shows: {probe}{see}"
        assert not probe.available or probe.devices, f"it is available on no device: {probe}{see}"

    def test_it_tells_memory_or_that_it_cannot(self) -> None:
        see = self._see_backend("backend.memory()")
        memory = self.make_backend().memory()
        assert memory is None or isinstance(memory, Memory), f"memory() gives {memory!r}{see}"
        if memory is not None:
            assert 0 <= memory.available <= memory.total, (
                f"memory() says {memory.available} of {memory.total} bytes are available{see}"
            )

    def test_its_ops_have_contracts(self) -> None:
        self._define_ops()
        known = {name for op in defined().values() for name in op.references}
        unknown = sorted(set(self.make_backend().ops) - known)
        assert not unknown, (
            f"it implements {', '.join(unknown)}, which no installed plugin defines: nothing calls them. "
            f"Defined are {', '.join(sorted(known))}" + self._see_backend("sorted(backend.ops)")
        )

    def test_samples_reach_what_it_implements(self, op: Op, samples: list[Sample]) -> None:
        """What is declined is the reference's, which agrees with itself in every other case."""
        watched = _Watched(self.make_backend())
        idle = set(op.references) & set(watched.ops)
        with BackendSelector({_NAME: watched}).using([_NAME]):
            for dtype, sample in itertools.product(DTYPES, samples):
                if idle := idle - watched.served:
                    gradients_of(op, op, self._cast(sample.args, dtype))
        idle -= watched.served
        assert not idle, (
            f"{' and '.join(sorted(idle))} returned NotImplemented for each of {len(samples)} samples, in "
            f"{' and '.join(DTYPES)}: the reference served, so that nothing of it was tested"
            + self._see_backend(*self.code_of(op), "backend.ops[op.contract.name](*args)  # args of a sample")
        )

    def left_out(self, case: str) -> str | None:
        """As `Suite.left_out`; the cases of ops are for backends that are available and have any."""
        if "op" not in inspect.signature(getattr(self, case)).parameters:
            return super().left_out(case)
        backend = self.make_backend()
        if not backend.probe().available:
            return f"backends that are available here ({backend.probe().reason})"
        return super().left_out(case) if backend.ops else "backends that implement an op"

    def _ops_here(self) -> list[str]:
        """Return the ops to test; "none" where there is none, or where looking for them raises."""
        try:
            backend = self.make_backend()
            return _forward_ops(backend) if backend.probe().available else ["none"]
        except Exception:  # noqa: BLE001 - the cases themselves will raise and show it
            return ["none"]

    def _define_ops(self) -> None:
        for component in (self.kernel or default_kernel()).components("op"):
            load_target(component)

    def _see_backend(self, *lines: str) -> str:
        return self.see(f"backend = {self.how('make_backend()')}", *lines)


class _Watched:
    """A backend that notes which of its implementations served a call."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.served: set[str] = set()
        self.device_type, self.priority = backend.device_type, backend.priority
        self.probe, self.memory = backend.probe, backend.memory

    @property
    def ops(self) -> Mapping[str, Callable[..., Any]]:
        return {name: partial(self._call, name, call) for name, call in self._backend.ops.items()}

    def _call(self, name: str, implementation: Callable[..., Any], *args: Any) -> Any:
        results = implementation(*args)
        if results is not NotImplemented:
            self.served.add(name)
        return results


def _forward_ops(backend: Backend) -> list[str]:
    return sorted({name.removesuffix("_backward") for name in backend.ops}) or ["none"]
