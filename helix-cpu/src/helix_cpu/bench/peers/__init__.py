"""The other ways to compute our ops on a CPU, each as its own users call it; imported only when asked for."""

from __future__ import annotations

import importlib
import importlib.util
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from helix_cpu.bench.contest import AbsentError

if TYPE_CHECKING:
    from types import ModuleType

PACKAGES = ("transformers", "llama-cpp-python", "jax", "mambapy", "fla-core")
"""What brings the peers: distributions, as pip names them."""


def require(module: str, distribution: str) -> ModuleType:
    """Import a peer's module.

    Raises:
        AbsentError: It is not installed, or does not import here.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if importlib.util.find_spec(module.partition(".")[0]) is None:
            raise AbsentError(f"absent: pip install {distribution}") from None
        raise AbsentError(
            f"{distribution} {installed(distribution)} does not import here: {error}"
        ) from error


def installed(distribution: str) -> str | None:
    """Return the version of a distribution, or None."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
