"""The core of Helix: hook specs, discovery, config, op contracts and checkpoints.

Importing this package imports nothing else: every public name below is loaded from its module
when it is first used, so that a manifest pays for what it touches and nothing imports torch.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

TYPE_CHECKING = False  # as in typing, whose import alone would cost more than a warm listing
if TYPE_CHECKING:
    from typing import Any

    from helix_kernel.build import Factory
    from helix_kernel.component import Component, Kind
    from helix_kernel.config import Config, load_config
    from helix_kernel.hooks import hookimpl
    from helix_kernel.kernel import Kernel, default_kernel, load_model
    from helix_kernel.options import ComponentOf, FactoryOf, option

_HOME = {
    "Component": "component",
    "Kind": "component",
    "hookimpl": "hooks",
    "ComponentOf": "options",
    "FactoryOf": "options",
    "option": "options",
    "Config": "config",
    "load_config": "config",
    "Factory": "build",
    "Kernel": "kernel",
    "default_kernel": "kernel",
    "load_model": "kernel",
}

__all__ = [
    "Component",
    "ComponentOf",
    "Config",
    "Factory",
    "FactoryOf",
    "Kernel",
    "Kind",
    "__version__",
    "default_kernel",
    "hookimpl",
    "load_config",
    "load_model",
    "option",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
