"""Imports what a component names, and says what is missing where that fails."""

from __future__ import annotations

import importlib
from functools import reduce
from typing import TYPE_CHECKING, Any

from helix_kernel.errors import DependencyError

if TYPE_CHECKING:
    from helix_kernel.component import Component


def load_target(component: Component) -> Any:
    """Import and return the component's target.

    Raises:
        DependencyError: The target or a package that it requires cannot be imported.
    """
    return _load(component, component.target)


def load_config_class(component: Component) -> type[Any] | None:
    """Import and return the component's config class, or None where it has none.

    Raises:
        DependencyError: The class cannot be imported.
    """
    if component.config is None:
        return None
    loaded: type[Any] = _load(component, component.config)
    return loaded


def load_function(component: Component, spelling: str) -> Any:
    """Import and return something else that a component names, as ``"package.module:function"``.

    Raises:
        DependencyError: It cannot be imported.
    """
    return _load(component, spelling)


def _load(component: Component, spelling: str) -> Any:
    module, _, attribute = spelling.partition(":")
    try:
        return reduce(getattr, attribute.split("."), importlib.import_module(module))
    except Exception as error:
        what = f"{component.kind or 'component'} {component.qualified!r}"
        needs = f" (it requires {', '.join(component.requires)})" if component.requires else ""
        raise DependencyError(f"{what}: {spelling!r} cannot be imported: {error}{needs}") from error
