"""Gives the tensors that an older version of a component saved the names and shapes of now."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from helix_kernel.errors import HelixError, IncompatibleCheckpointError
from helix_kernel.targets import load_function, load_target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from helix_kernel.component import Component
    from helix_kernel.kernel import Kernel

    Tensors = dict[str, Any]
    Upgrade = Callable[[Tensors], Tensors]


def renamed(tensors: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return tensors under new names, in their order: what most upgrades do.

    Args:
        tensors: By name.
        names: New names by old ones; a name of a module renames all that lies below it.
    """
    return {_renamed(name, names): tensor for name, tensor in tensors.items()}


def upgraded(
    module: Any, tensors: Mapping[str, Any], saved: Mapping[str, str], *, kernel: Kernel | None = None
) -> dict[str, Any]:
    """Return a module's tensors as the installed versions of its components name and shape them.

    An upgrade is given those below each module whose type is the component's target, the outermost
    modules first.

    Args:
        module: The ``nn.Module`` that takes them on.
        tensors: By dotted name: its weights, or of an optimizer one value for each weight.
        saved: Versions of the components when they were saved, as a checkpoint records them.
        kernel: What is installed; all plugins if left out.

    Raises:
        IncompatibleCheckpointError: An upgrade failed.
    """
    upgrades = _upgrades(saved, kernel)
    found = dict(tensors)
    for name, part in module.named_modules() if upgrades else ():
        for source, upgrade in upgrades.get(type(part), ()):
            found = _below(found, f"{name}." if name else "", source, upgrade)
    return found


def _upgrades(saved: Mapping[str, str], kernel: Kernel | None) -> dict[type, list[tuple[str, Upgrade]]]:
    """Return what must be run, in order, by the type of the modules that it is run on."""
    from helix_kernel.kernel import default_kernel

    found = {}
    for name, version in saved.items():
        kind, _, qualified = name.rpartition("/")
        if kind == "layer":
            component = (kernel or default_kernel()).registry.look_up(kind, qualified)
            steps = component.upgrades_from(version) if component else []
            if component and steps:
                found[_target_class(component)] = [(s, load_function(component, s)) for s in steps]
    return found


def _target_class(component: Component) -> type:
    target = load_target(component)
    if not inspect.isclass(target):
        raise IncompatibleCheckpointError(
            f"{component.qualified} declares upgrades, but its target {component.target!r} is no class, so "
            "that its modules cannot be told from others"
        )
    return target


def _below(tensors: Tensors, prefix: str, source: str, upgrade: Upgrade) -> Tensors:
    own = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    if not own:
        return tensors
    try:
        changed = upgrade(own)
    except HelixError:
        raise
    except Exception as error:
        raise IncompatibleCheckpointError(
            f"the upgrade {source!r} of {prefix.rstrip('.') or 'the model'} failed: "
            f"{type(error).__name__}: {error}"
        ) from error
    others = {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}
    return others | {f"{prefix}{name}": tensor for name, tensor in changed.items()}


def _renamed(name: str, names: Mapping[str, str]) -> str:
    for old, new in names.items():
        if name == old or name.startswith(f"{old}."):
            return f"{new}{name[len(old) :]}"
    return name
