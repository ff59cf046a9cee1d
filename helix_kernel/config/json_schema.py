"""One JSON Schema of everything installed, for editors. Imports no component's target."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel.config import KernelSettings
from helix_kernel.config.schema import Option, Schema, schema_of, schema_of_class
from helix_kernel.errors import DependencyError
from helix_kernel.options import FactoryOf, nested_marker

if TYPE_CHECKING:
    from helix_kernel.component import Component
    from helix_kernel.kernel import Kernel

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REFERENCE = {"type": "string", "pattern": r"\$\{[^${}]+\}"}
_SCALARS = {bool: "boolean", int: "integer", float: "number", str: "string", Path: "string"}


def json_schema(kernel: Kernel) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of configs that this kernel can check."""
    return _Writer(kernel).document()


class _Writer:
    """Writes each kind once for every set of arguments that parents supply."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._definitions: dict[str, Any] = {}

    def document(self) -> dict[str, Any]:
        sections = {
            section: self._kind(kind.name, kind.context, kind.default)
            for section, kind in self._kernel.registry.sections.items()
        }
        extends = {"description": "config files that this one builds on", **_one_or_many({"type": "string"})}
        settings = self._options(schema_of_class(KernelSettings), ())
        return {
            "$schema": DIALECT,
            "title": "Helix config",
            "type": "object",
            "additionalProperties": False,
            "properties": {"extends": extends, "kernel": settings, **sections},
            "$defs": self._definitions,
        }

    def _kind(self, kind: str, supplied: tuple[str, ...], default: str | None = None) -> dict[str, Any]:
        words = [kind, *(["without", *supplied] if supplied else []), *(["or", default] if default else [])]
        name = "-".join(words)
        if name not in self._definitions:
            self._definitions[name] = {}  # a placeholder, since a kind may nest its own
            components = self._kernel.components(kind)
            names = _names(components)
            table = {
                "type": "object",
                "required": [] if default else ["use"],
                "properties": {"use": {"enum": names, "description": f"the {kind} to use"}},
                "allOf": [self._branch(component, supplied, default) for component in components],
            }
            alone = _names([component for component in components if _stands_alone(component, supplied)])
            self._definitions[name] = {"anyOf": [table, {"enum": alone}, _REFERENCE]} if names else False
        return {"$ref": f"#/$defs/{name}"}

    def _branch(self, component: Component, supplied: tuple[str, ...], default: str | None) -> dict[str, Any]:
        chosen: dict[str, Any] = {"properties": {"use": {"enum": [*component.names, component.qualified]}}}
        if component.name != default:
            chosen["required"] = ["use"]
        return {"if": chosen, "then": self._component(component, supplied)}

    def _component(self, component: Component, supplied: tuple[str, ...]) -> dict[str, Any]:
        schema = _schema(component)
        if schema is None:
            return {"description": component.summary}
        table = self._options(schema, supplied)
        table["description"] = component.summary
        table["properties"]["use"] = True
        return table

    def _options(self, schema: Schema, supplied: tuple[str, ...]) -> dict[str, Any]:
        own = [option for option in schema.options.values() if option.name not in supplied]
        return {
            "type": "object",
            "properties": {option.name: self._option(option) for option in own},
            "required": [option.name for option in own if option.required],
            "additionalProperties": schema.is_open,
        }

    def _option(self, option: Option) -> dict[str, Any]:
        described = self._type(option.type, option)
        if option.help:
            described["description"] = option.help
        if isinstance(option.default, str | int | float | list | tuple | dict):
            described["default"] = option.default
        return described

    def _type(self, annotation: Any, option: Option) -> dict[str, Any]:
        marker = nested_marker(annotation)
        if marker:
            supplied = marker.supplies if isinstance(marker, FactoryOf) else ()
            default = option.default["use"] if isinstance(option.default, Mapping) else None
            return self._kind(marker.kind, supplied, default)
        origin, arguments = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
        if origin in _SCALARS:
            return {"anyOf": [{"type": _SCALARS[origin], **_bounds(option)}, _REFERENCE]}
        if origin is typing.Literal:
            return {"anyOf": [{"enum": list(arguments)}, _REFERENCE]}
        if origin in (typing.Union, types.UnionType):
            return {"anyOf": [self._type(part, option) for part in arguments if part is not type(None)]}
        if origin in (list, tuple, Sequence):
            return {"anyOf": [self._sequence(origin, arguments or (Any,), option), _REFERENCE]}
        if origin in (dict, Mapping):
            values = self._type((*arguments, Any, Any)[1], option)
            return {"anyOf": [{"type": "object", "additionalProperties": values or True}, _REFERENCE]}
        if attrs.has(origin):
            return {"anyOf": [self._options(schema_of_class(origin), ()), _REFERENCE]}
        return {}

    def _sequence(self, origin: Any, arguments: tuple[Any, ...], option: Option) -> dict[str, Any]:
        if origin is tuple and Ellipsis not in arguments:
            items = [self._type(part, option) for part in arguments]
            return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
        return {"type": "array", "items": self._type(arguments[0], option)}


def _names(components: Sequence[Component]) -> list[str]:
    return sorted({name for component in components for name in (*component.names, component.qualified)})


def _schema(component: Component) -> Schema | None:
    """Return a component's schema, or None where only importing its target would tell it."""
    if component.config is None:
        return None
    try:
        return schema_of(component)
    except DependencyError:  # using the component is what reports this
        return None


def _stands_alone(component: Component, supplied: tuple[str, ...]) -> bool:
    """Whether a name alone is enough: nothing that the component requires is left to the config."""
    schema = _schema(component)
    options = schema.options.values() if schema else ()
    return not any(option.required and option.name not in supplied for option in options)


def _bounds(option: Option) -> dict[str, Any]:
    bounds = option.bounds
    if bounds is None:
        return {}
    words = {
        "exclusiveMinimum": bounds.gt,
        "minimum": bounds.ge,
        "exclusiveMaximum": bounds.lt,
        "maximum": bounds.le,
    }
    return {word: bound for word, bound in words.items() if bound is not None}


def _one_or_many(item: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [item, {"type": "array", "items": item}]}
