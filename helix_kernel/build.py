"""Builds what a config resolved to: imports targets and calls them with plain keyword arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from helix_kernel.config.resolve import Resolved, check_whole
from helix_kernel.config.schema import schema_of
from helix_kernel.errors import ArgumentError, ConfigError
from helix_kernel.options import FactoryOf
from helix_kernel.targets import load_target

if TYPE_CHECKING:
    from helix_kernel.component import Component


class Factory:
    """Builds any number of instances of one resolved component.

    Calling it with the arguments that the config left out (keyword only) builds one.
    """

    def __init__(self, resolved: Resolved) -> None:
        self.resolved = resolved

    @property
    def component(self) -> Component:
        """What it builds."""
        return self.resolved.component

    def __call__(self, **missing: Any) -> Any:
        """Build one instance.

        Raises:
            ArgumentError: An argument is missing, unknown, or set by the config already.
            ConfigError: The component's config class refuses the arguments together.
        """
        return build(self.resolved, missing)

    def __repr__(self) -> str:
        return f"Factory({self.component.kind} {self.component.qualified})"


def build(resolved: Resolved, context: Mapping[str, Any]) -> Any:
    """Build a resolved component with the arguments that its config left out.

    Args:
        resolved: What to build.
        context: Arguments beyond the config's.

    Raises:
        ArgumentError: An argument is missing, unknown, or set by the config already.
        ConfigError: The component's config class refuses the arguments together.
        DependencyError: A target cannot be imported.
    """
    schema = schema_of(resolved.component)
    name = f"{resolved.component.kind} {resolved.component.qualified}"
    twice = sorted(set(context) & set(resolved.arguments))
    if twice:
        raise ArgumentError(f"{name}: {', '.join(twice)} given by both the config and the caller")
    unknown = [] if schema.is_open else sorted(set(context) - set(schema.options))
    if unknown:
        raise ArgumentError(f"{name} takes no {', '.join(unknown)}; it takes {', '.join(schema.options)}")
    together = {**resolved.arguments, **context}
    missing = [o.name for o in schema.options.values() if o.required and o.name not in together]
    if missing:
        raise ArgumentError(f"{name} cannot be built: {', '.join(missing)} missing")
    found = check_whole(schema, together)
    if found:
        raise ConfigError(found, name)
    arguments = {
        key: _built(value, schema.options[key].nested if key in schema.options else None)
        for key, value in together.items()
    }
    return _call(resolved.component, arguments)


def _built(value: Any, marker: object) -> Any:
    if isinstance(value, Resolved):
        return Factory(value) if isinstance(marker, FactoryOf) else build(value, {})
    if isinstance(value, list | tuple):
        return type(value)(_built(item, marker) for item in value)
    if isinstance(value, Mapping):
        return {key: _built(item, marker) for key, item in value.items()}
    return value


def _call(component: Component, arguments: Mapping[str, Any]) -> Any:
    target = load_target(component)
    try:
        return target(**arguments)
    except Exception as error:
        error.add_note(f"while building {component.kind} {component.qualified}")
        raise
