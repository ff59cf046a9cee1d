"""The options that a component takes, read from its config class or its target's signature."""

from __future__ import annotations

import inspect
import typing
from functools import cache
from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel.config.docstrings import argument_docs
from helix_kernel.errors import ArgumentError, ConfigError, DependencyError, Problem
from helix_kernel.options import Bounds, ComponentOf, FactoryOf, markers_within
from helix_kernel.renames import tell
from helix_kernel.targets import load_config_class, load_target

if TYPE_CHECKING:
    from collections.abc import Mapping

    from helix_kernel.component import Component


@attrs.frozen(kw_only=True)
class Option:
    """One option of a component.

    Args:
        name: Its key in a config.
        type: The annotation.
        default: Its default; `attrs.NOTHING` where it is required.
        help: One line of documentation.
        bounds: The range that numbers must lie in, if any.
        attribute: The attrs attribute that it came from, with its validators, if any.
        deprecated: Old names, each with the version since which it has its own.
        locked: Whether a config's lock holds it.
    """

    name: str
    type: Any
    default: Any = attrs.NOTHING
    help: str = ""
    bounds: Bounds | None = None
    attribute: attrs.Attribute[Any] | None = None
    deprecated: Mapping[str, str] = attrs.field(factory=dict)
    locked: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that a config may give it by, its own first."""
        return (self.name, *self.deprecated)

    @property
    def required(self) -> bool:
        """Whether a config must give it."""
        return self.default is attrs.NOTHING

    @property
    def nested(self) -> ComponentOf | FactoryOf | None:
        """The marker of an option that holds components, alone or in a list, union or table."""
        return next(iter(markers_within(self.type)), None)


@attrs.frozen(kw_only=True)
class Schema:
    """All options of a component.

    Args:
        options: By name, in order.
        config_class: The attrs class that checks options against each other, if there is one.
        doc: What the component's class says that it is.
        is_open: Whether options beyond these are passed on unchecked.
    """

    options: Mapping[str, Option]
    config_class: type[Any] | None = None
    doc: str = ""
    is_open: bool = False

    @property
    def old_names(self) -> dict[str, Option]:
        """The options by each name that they had before."""
        return {old: option for option in self.options.values() for old in option.deprecated}


def schema_of(component: Component) -> Schema:
    """Return the schema of a component. Imports its config class, or else its target.

    Raises:
        DependencyError: What must be imported cannot be.
    """
    config_class = load_config_class(component)
    if config_class is None:
        return _from_signature(component)
    if not attrs.has(config_class):
        raise DependencyError(f"{component.qualified!r}: {component.config!r} is not an attrs class")
    return schema_of_class(config_class)


@cache
def schema_of_class(config_class: type[Any]) -> Schema:
    """Return the schema that an attrs class declares."""
    attrs.resolve_types(config_class, include_extras=True)
    options = {}
    for attribute in attrs.fields(config_class):
        validator = attribute.validator
        options[attribute.name] = Option(
            name=attribute.name,
            type=Any if attribute.type is None else attribute.type,
            default=_default(attribute),
            help=attribute.metadata.get("help", ""),
            bounds=validator if isinstance(validator, Bounds) else None,
            attribute=attribute,
            deprecated=attribute.metadata.get("deprecated", {}),
            locked=attribute.metadata.get("locked", True),
        )
    schema = Schema(options=options, config_class=config_class, doc=inspect.getdoc(config_class) or "")
    if both := sorted(schema.old_names.keys() & options.keys()):
        raise ArgumentError(f"{config_class.__name__}: {', '.join(both)} is an option and an old name of one")
    return schema


def with_new_names(schema: Schema, values: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """Return values by the new names of options, telling of each old one.

    Args:
        schema: The options.
        values: What a config gives, by name.
        owner: Whose options they are, for the messages.

    Raises:
        ConfigError: An option is given by its old name and its new one.
    """
    renamed: dict[str, Any] = {}
    twice = []
    for name, value in values.items():
        option = schema.old_names.get(name)
        if option is None:
            renamed[name] = value
        elif option.name in values or option.name in renamed:
            twice.append(Problem(name, f"an old name of {option.name}, which is given too; leave one out"))
        else:
            renamed[option.name] = value
            since = f"since version {option.deprecated[name]}; use the new name"
            tell(f"{owner}: option {name!r} is called {option.name!r} {since}")
    if twice:
        raise ConfigError(twice)
    return renamed


def check_bounds(option: Option, value: Any) -> None:
    """Run an option's validators.

    Raises:
        ArgumentError: The value is not allowed; the message says what is.
    """
    if option.bounds is not None:
        if not option.bounds.admits(value):
            raise ArgumentError(f"given {value!r}, allowed is {option.bounds}")
    elif option.attribute is not None and option.attribute.validator is not None:
        option.attribute.validator(None, option.attribute, value)


def _default(attribute: attrs.Attribute[Any]) -> Any:
    default: Any = attribute.default
    # attrs.Factory, which the stubs call a function
    return default.factory() if hasattr(default, "factory") else default


def _from_signature(component: Component) -> Schema:
    target = load_target(component)
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return Schema(options={}, is_open=True)
    hints, doc = _type_hints(target), inspect.getdoc(target) or ""
    documented = argument_docs(doc)
    options = {}
    is_open = False
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            is_open = True
        elif parameter.kind not in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            empty = parameter.default is parameter.empty
            default = attrs.NOTHING if empty else parameter.default
            options[name] = Option(
                name=name, type=hints.get(name, Any), default=default, help=documented.get(name, "")
            )
    return Schema(options=options, doc=doc, is_open=is_open)


def _type_hints(target: Any) -> dict[str, Any]:
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError):  # names that exist only for type checkers
        return {}
