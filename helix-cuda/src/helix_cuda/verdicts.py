"""What the self-checks found, kept on disk for a device, a compiler and the kernels as they are written."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from helix_cuda import __version__
from helix_kernel.discovery import read_cache, write_cache

if TYPE_CHECKING:
    import torch

SOURCES = Path(__file__).parent
_KERNELS = ("kernels/*.py", "ops/*.py", "arguments.py", "tuning.py")


@attrs.frozen
class Verdict:
    """What the check of an op found.

    Args:
        reason: What was wrong, or None.
        thorough: Whether every sample was tried, in every configuration.
    """

    reason: str | None
    thorough: bool = False


def read(op: str, device: str) -> Verdict | None:
    """Return the verdict on an op, or None where the check has not been made.

    Args:
        op: The op's name.
        device: The device, as `describe` does.
    """
    found = read_cache(_file(op, device))
    try:
        return None if found is None else Verdict(**found["verdict"])
    except (KeyError, TypeError):  # written by a later version
        return None


def write(op: str, device: str, verdict: Verdict) -> None:
    """Keep a verdict, in place of the one before."""
    about = {"op": op, "device": device, "triton": triton_version()}
    write_cache(_file(op, device), {"about": about, "verdict": attrs.asdict(verdict)})


def describe(device: torch.device) -> str:
    """Return a device's name and capability: of two that are alike, one verdict holds."""
    if device.type != "cuda":
        return "Triton's interpreter"
    import torch

    major, minor = torch.cuda.get_device_capability(device.index)
    return f"{torch.cuda.get_device_name(device.index)} (compute capability {major}.{minor})"


@cache
def triton_version() -> str:
    """Return the version of Triton that is installed, without importing it."""
    for name in ("triton", "pytorch-triton"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


def _file(op: str, device: str) -> str:
    import torch

    state = [op, device, triton_version(), torch.__version__, __version__, _digest(SOURCES)]
    return f"cuda-check-{hashlib.sha256(repr(state).encode()).hexdigest()[:32]}.json"


@cache
def _digest(folder: Path) -> str:
    """Return a hash of everything that a kernel is made of."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in _KERNELS for path in folder.glob(pattern)):
        digest.update(f"{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()
