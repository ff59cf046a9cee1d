"""A hook on the import of transformers' modeling files, which are imported one by one as they are needed.

It costs nothing until such a file is imported, so that it can stand before transformers itself is there. The
classes have what Python asks of finders and loaders, without the bases in importlib.abc, whose import costs a
program more than this package at start.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType


def is_modeling(name: str) -> bool:
    """Whether a name is a modeling file's, such as ``transformers.models.mamba.modeling_mamba``."""
    return name.startswith("transformers.models.") and name.rpartition(".")[2].startswith("modeling_")


def imported() -> list[ModuleType]:
    """Return the modeling files that are imported already."""
    return [module for name, module in list(sys.modules.items()) if is_modeling(name) and module is not None]


class ModelingFinder:
    """Finds modeling files as Python would, and calls back when one was imported.

    Args:
        then: Called with each module when its code has run.
    """

    def __init__(self, then: Callable[[ModuleType], None]) -> None:
        self._then = then

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a modeling file, or None for any other module."""
        if not is_modeling(fullname):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._then)  # type: ignore[assignment]  # as the module says
        return spec


class _Loader:
    """Loads as the loader it holds, which takes its place again as soon as the code has run."""

    def __init__(self, loader: Loader, then: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._then = then

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._then(module)
