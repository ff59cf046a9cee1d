"""The conformance suite of backends: what every backend must do, and each op that it serves.

Subclass `BackendSuite`, give it a backend, and pytest runs the rest::

    class TestMyBackend(BackendSuite):
        def make_backend(self):
            return MyBackend()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from helix_kernel import default_kernel
from helix_kernel.backends import ANY_DEVICE, BackendSelector, Memory, Probe
from helix_kernel.ops import defined
from helix_kernel.targets import load_target
from helix_kernel.testing.ops import OpSuite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helix_kernel.backends import Backend
    from helix_kernel.ops import Op

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

    def left_out(self, case: str) -> str | None:
        """As `Suite.left_out`; the cases of ops are for backends that are available and have any."""
        if not hasattr(OpSuite, case):
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


def _forward_ops(backend: Backend) -> list[str]:
    return sorted({name.removesuffix("_backward") for name in backend.ops}) or ["none"]
