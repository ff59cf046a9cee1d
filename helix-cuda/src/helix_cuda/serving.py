"""What stands before each kernel: the check of its op at the first call on a device, and the right device."""

from __future__ import annotations

import os
import threading
import warnings
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from helix_cuda import verdicts
from helix_cuda.interpreter import interprets
from helix_cuda.ops import NAMES, implementations
from helix_cuda.verdicts import Verdict
from helix_kernel.ops import defined

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

VARIABLE = "HELIX_CUDA_SELF_CHECK"
"""Environment variable: ``0`` lets kernels serve unchecked; ``1`` has them checked when interpreted, too."""


class Servers:
    """The ops as the backend offers them: checked once for a device, and left to others where they fail.

    Nothing is imported, compiled or checked before an op is called. What is offered stays so: kernels that
    turn out wrong decline.
    """

    def __init__(self) -> None:
        self._guards = {name: _Guard(name) for name in NAMES}

    @cached_property
    def ops(self) -> Mapping[str, Callable[..., Any]]:
        """Return each op and its gradient by name, but for those that are withheld."""
        offered = {name: guard for name, guard in self._guards.items() if name not in self.withheld}
        return MappingProxyType(
            {name: kernel for guard in offered.values() for name, kernel in guard.kernels.items()}
        )

    @cached_property
    def withheld(self) -> Mapping[str, str]:
        """Return why ops are not offered that an earlier check found wrong on every device here."""
        if not checks():
            return MappingProxyType({})
        devices = {verdicts.describe(device) for device in present()}
        found: dict[str, str] = {}
        for op in NAMES:
            reasons = [
                _reason(op, device, verdict.reason)
                for device in sorted(devices)
                if (verdict := verdicts.read(op, device)) is not None and verdict.reason is not None
            ]
            if reasons and len(reasons) == len(devices):
                found |= dict.fromkeys((op, f"{op}_backward"), "; ".join(reasons))
        return MappingProxyType(found)


def checks() -> bool:
    """Return whether ops are checked in this process: the interpreter is no compiler that errs."""
    return os.environ.get(VARIABLE, "0" if interprets() else "1") != "0"


def present() -> list[torch.device]:
    """Return the devices that kernels may run on here."""
    if interprets():
        return [torch.device("cpu")]
    n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [torch.device("cuda", index) for index in range(n_devices)]


def check(op: str, device: torch.device, *, thorough: bool = False) -> Verdict:
    """Check an op on a device now, and keep the verdict. The op must be defined."""
    from helix_cuda.self_check import failure

    verdict = Verdict(failure(defined()[op], device, thorough=thorough), thorough)
    verdicts.write(op, verdicts.describe(device), verdict)
    return verdict


class _Guard:
    """One op and its gradient, which serve together or not at all.

    Args:
        op: The op's name.
    """

    def __init__(self, op: str) -> None:
        self._op = op
        self._is_sound: dict[torch.device, bool] = {}
        self._lock = threading.RLock()
        self.kernels = {name: self._before(name) for name in (op, f"{op}_backward")}

    def _before(self, name: str) -> Callable[..., Any]:
        ready: dict[torch.device, Callable[..., Any]] = {}

        def kernel(*args: Any) -> Any:
            device = next(arg.device for arg in args if isinstance(arg, torch.Tensor))
            serve = ready.get(device)
            if serve is None:
                is_sound = self._look(device)
                serve = _decline if is_sound is False else implementations()[name]
                if is_sound is not None:
                    ready[device] = serve
            if device.type != "cuda" or device.index == torch.cuda.current_device():
                return serve(*args)
            with torch.cuda.device(device):  # Triton launches on the current one
                return serve(*args)

        return kernel

    def _look(self, device: torch.device) -> bool | None:
        """Return whether the op is right on a device; None where that cannot be found out at this moment."""
        if not checks():
            return True
        with self._lock:
            if device not in self._is_sound:
                verdict = verdicts.read(self._op, verdicts.describe(device))
                if verdict is None:
                    if _must_not_wait():
                        return None
                    verdict = check(self._op, device)
                    self._is_sound[device] = verdict.reason is None
                    if verdict.reason is not None:
                        _warn(self._op, verdicts.describe(device), verdict.reason)
                self._is_sound[device] = verdict.reason is None
            return self._is_sound[device]


def _decline(*_: Any) -> Any:
    return NotImplemented


def _must_not_wait() -> bool:
    """Whether a check now would be recorded in a CUDA graph, or traced."""
    capturing = torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
    return capturing or torch.compiler.is_compiling()


def _warn(op: str, device: str, reason: str) -> None:
    warnings.warn(
        f"helix-cuda's {_reason(op, device, reason)}; another backend serves it. Install another Triton "
        f"(python -m pip install 'triton!={verdicts.triton_version()}'), or check again: "
        f"helix cuda check --op {op} --fresh ({VARIABLE}=0 uses it all the same)",
        RuntimeWarning,
        stacklevel=4,
    )


def _reason(op: str, device: str, reason: str) -> str:
    return f"{op} fails its self-check by Triton {verdicts.triton_version()} on {device}: {reason}"
