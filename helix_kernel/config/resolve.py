"""Resolves tables to components with every default filled in, reporting all mistakes at once."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from datetime import date, time
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel.config.schema import Option, Schema, check_bounds, schema_of, with_new_names
from helix_kernel.config.structure import describe, given, make_converter, problems
from helix_kernel.errors import ConfigError, HelixError, InputError, Problem, did_you_mean
from helix_kernel.options import ComponentOf, FactoryOf, nested_marker
from helix_kernel.renames import told_once

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helix_kernel.component import Component
    from helix_kernel.registry import Registry

_WRITABLE = (str, int, float, list, tuple, Mapping, PurePath, date, time)


@attrs.frozen
class Resolved:
    """A component with its arguments, ready to be built.

    Args:
        component: What is built.
        arguments: Every option by name, defaults filled in; nested components are `Resolved`.
            Arguments that a parent or the caller supplies are absent.
        supplied: Names of those arguments.
    """

    component: Component
    arguments: Mapping[str, Any]
    supplied: tuple[str, ...] = ()

    def to_table(self) -> dict[str, Any]:
        """Return the table that resolves to this again: qualified `use`, every option given."""
        given = {name: _plain(value) for name, value in self.arguments.items() if _can_be_written(value)}
        return {"use": self.component.qualified, **given}


class Resolver:
    """Checks tables against the schemas of the components that they name.

    Args:
        registry: Where components are looked up.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._converter = make_converter()
        self._converter.register_structure_hook_factory(
            lambda annotation: nested_marker(annotation) is not None,
            lambda annotation: lambda value, _: self._nested(value, annotation),
        )

    def resolve(self, kind: str, table: Any, *, supplied: tuple[str, ...] = (), path: str = "") -> Resolved:
        """Resolve one component.

        Args:
            kind: The kind wanted.
            table: A table with `use`, a component's name alone, or what was resolved before.
            supplied: Arguments that the table leaves to whoever builds the component.
            path: Where the table stands, for messages.

        Raises:
            ConfigError: With every problem below `path`.
        """
        try:
            with told_once():
                return self._resolve(kind, table, supplied)
        except ConfigError as error:
            raise ConfigError(problems(error, path)) from error

    def default_of(self, kind: str, table: Any, keys: list[str]) -> Any:
        """Return the default of an option that a table leaves out.

        Raises:
            KeyError: There is no such option, or it has no default.
        """
        if isinstance(table, str):
            table = {"use": table}
        if not isinstance(table, Mapping) or not isinstance(table.get("use"), str):
            raise KeyError(keys[0])
        try:
            schema = schema_of(self._registry.find(kind, table["use"]))
            option = schema.options.get(keys[0]) or schema.old_names[keys[0]]
        except InputError as error:
            raise KeyError(keys[0]) from error
        value = over_default(option, next((table[n] for n in option.names if n in table), option.default))
        if value is attrs.NOTHING:
            raise KeyError(keys[0])
        if len(keys) == 1:
            return value
        if option.nested is None:
            raise KeyError(keys[1])
        return self.default_of(option.nested.kind, value, keys[1:])

    def component(self, kind: str, table: Any) -> Component:
        """Return the component that a table (or a name alone) asks for.

        Raises:
            ConfigError: It names none, or one that is not installed.
        """
        use = table.get("use") if isinstance(table, Mapping) else table
        if not isinstance(use, str):
            known = ", ".join(component.name for component in self._registry.components(kind))
            what = "missing" if use is None else given(use)
            raise ConfigError([Problem("use", f"{what}; it names the {kind}. Installed: {known or 'none'}")])
        try:
            return self._registry.find(kind, use)
        except InputError as error:
            raise ConfigError([Problem("use", str(error))]) from error

    def _resolve(self, kind: str, table: Any, supplied: tuple[str, ...]) -> Resolved:
        if isinstance(table, Resolved):
            return table
        if isinstance(table, str):
            table = {"use": table}
        if not isinstance(table, Mapping):
            raise ConfigError([Problem("", f"{given(table)}, allowed is a table with a {kind} in `use`")])
        component = self.component(kind, table)
        try:
            schema = schema_of(component)
        except HelixError as error:
            raise ConfigError([Problem("use", str(error))]) from error
        options = {key: value for key, value in table.items() if key != "use"}
        values = with_new_names(schema, options, component.qualified)
        arguments, found = self._arguments(component, schema, values, supplied)
        if not found:
            found = check_whole(schema, arguments)
        if found:
            raise ConfigError(found)
        absent = tuple(name for name in supplied if name not in arguments)
        return Resolved(component, arguments, absent)

    def _arguments(
        self, component: Component, schema: Schema, values: Mapping[str, Any], supplied: tuple[str, ...]
    ) -> tuple[dict[str, Any], list[Problem]]:
        found = _unknown(component, schema, values, supplied) + _unwanted(component, schema, supplied)
        arguments: dict[str, Any] = {}
        for option in schema.options.values():
            if option.name in supplied:
                continue
            try:
                arguments[option.name] = self._argument(option, values, component)
            except Exception as error:  # noqa: BLE001 - every cause becomes a line of the report
                found.extend(problems(error, option.name))
        if schema.is_open:
            arguments.update({key: values[key] for key in values if key not in schema.options})
        return arguments, found

    def _argument(self, option: Option, values: Mapping[str, Any], component: Component) -> Any:
        if option.name in values:
            value = self._converter.structure(over_default(option, values[option.name]), option.type)
            check_bounds(option, value)
            return value
        if option.required:
            note = f": {option.help}" if option.help else ""
            raise ConfigError(
                [Problem("", f"missing; {component.qualified} requires {describe(option.type)}{note}")]
            )
        if option.default is not None and (option.nested or isinstance(option.default, list | dict)):
            return self._converter.structure(copy.deepcopy(option.default), option.type)
        return option.default

    def _nested(self, value: Any, annotation: Any) -> Resolved:
        marker = nested_marker(annotation)
        if isinstance(marker, FactoryOf):
            return self._resolve(marker.kind, value, marker.supplies)
        assert isinstance(marker, ComponentOf)
        return self._resolve(marker.kind, value, ())


def components_within(value: Any) -> Iterator[Component]:
    """Yield the components of what was resolved, nested ones and those in lists and tables too."""
    if isinstance(value, Resolved):
        yield value.component
        yield from components_within(value.arguments)
    elif isinstance(value, Mapping):
        yield from components_within(tuple(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from components_within(item)


def over_default(option: Option, value: Any) -> Any:
    """Return a nested table on top of its option's default, where it names no `use` of its own."""
    default = option.default
    if option.nested and isinstance(value, Mapping) and "use" not in value and isinstance(default, Mapping):
        return {**default, **value}
    return value


def check_whole(schema: Schema, arguments: Mapping[str, Any]) -> list[Problem]:
    """Check options against each other, by making the config class where all are present."""
    if schema.config_class is None or set(schema.options) - set(arguments):
        return []
    try:
        schema.config_class(**arguments)
    except Exception as error:  # noqa: BLE001 - a config class's own check may raise anything
        return problems(error, "")
    return []


def _unknown(
    component: Component, schema: Schema, values: Mapping[str, Any], supplied: tuple[str, ...]
) -> list[Problem]:
    found = []
    own = [name for name in schema.options if name not in supplied]
    for key in values:
        if key in supplied and key in schema.options:
            found.append(Problem(key, "set by what holds this table; leave it out"))
        elif key not in schema.options and not schema.is_open:
            takes = f"{component.qualified} takes {', '.join(own) or 'no options'}"
            found.append(Problem(key, f"unknown option.{did_you_mean(key, own)} {takes}"))
    return found


def _unwanted(component: Component, schema: Schema, supplied: tuple[str, ...]) -> list[Problem]:
    """Report a component that cannot stand here, since it would be called with what it does not take."""
    extra = [] if schema.is_open else [name for name in supplied if name not in schema.options]
    if not extra:
        return []
    takes = ", ".join(schema.options) or "no options"
    message = f"{component.qualified} cannot stand here: it is given {', '.join(extra)}, but takes {takes}"
    return [Problem("use", message)]


def _can_be_written(value: Any) -> bool:
    """Whether TOML has such a value; a default that it lacks, as a signature may have, is left out."""
    return value is None or isinstance(value, _WRITABLE) or attrs.has(type(value))


def _plain(value: Any) -> Any:
    if isinstance(value, Resolved):
        return value.to_table()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if attrs.has(type(value)):
        return {key: _plain(item) for key, item in attrs.asdict(value, recurse=False).items()}
    return str(value) if isinstance(value, PurePath) else value
