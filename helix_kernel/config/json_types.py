"""Says in JSON Schema what values an option's type allows."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel.config.schema import Schema, schema_of_class
from helix_kernel.options import nested_marker

if TYPE_CHECKING:
    from helix_kernel.options import Bounds, ComponentOf, FactoryOf

    JsonSchema = dict[str, Any]
    OfNested = Callable[[ComponentOf | FactoryOf], JsonSchema]
    OfRecord = Callable[[Schema], JsonSchema]

REFERENCE = {"type": "string", "pattern": r"^\$\{[^${}]+\}$"}
"""A reference to another value, in place of one that is no text."""
_WITH_REFERENCE = {"type": "string", "pattern": r"\$\{[^${}]+\}"}
_SCALARS = {bool: "boolean", int: "integer", float: "number"}


@attrs.frozen
class TypeWriter:
    """Writes types.

    Args:
        of_nested: Writes what a component may be, by the marker of its kind.
        of_record: Writes a table that is no component, by its options.
    """

    of_nested: OfNested
    of_record: OfRecord

    def write(self, annotation: Any, bounds: Bounds | None = None) -> JsonSchema:
        """Return the JSON Schema of a type whose numbers lie within bounds."""
        marker = nested_marker(annotation)
        if marker:
            return self.of_nested(marker)
        origin, arguments = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
        if origin is typing.Annotated:
            return self.write(arguments[0], bounds)
        if origin in _SCALARS:
            return _or_reference({"type": _SCALARS[origin], **_limits(origin, bounds)})
        if origin in (str, Path):
            return {"type": "string"}
        if origin is typing.Literal:
            return {"anyOf": [{"enum": list(arguments)}, _WITH_REFERENCE]}
        if origin in (typing.Union, types.UnionType):
            members = [self.write(part, bounds) for part in arguments if part is not type(None)]
            return members[0] if len(members) == 1 else {"anyOf": members}
        if origin in (list, tuple, Sequence):
            return _or_reference(self._sequence(origin, arguments or (Any,), bounds))
        if origin in (dict, Mapping):  # whose values bounds do not judge
            values = self.write((*arguments, Any, Any)[1])
            return _or_reference({"type": "object", "additionalProperties": values or True})
        if attrs.has(origin):
            return _or_reference(self.of_record(schema_of_class(origin)))
        return {}

    def _sequence(self, origin: Any, arguments: tuple[Any, ...], bounds: Bounds | None) -> JsonSchema:
        if origin is tuple and Ellipsis not in arguments:
            items = [self.write(part, bounds) for part in arguments]
            return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
        return {"type": "array", "items": self.write(arguments[0], bounds)}


def json_default(value: Any) -> Any:
    """Return a default as JSON has it, or None where it has no such value, or none worth telling."""
    if attrs.has(type(value)):
        value = attrs.asdict(value)
    try:
        return json.loads(json.dumps(value, default=_text_of_path, allow_nan=False))
    except (TypeError, ValueError):
        return None


def _text_of_path(value: object) -> str:
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(value)


def _or_reference(schema: JsonSchema) -> JsonSchema:
    return {"anyOf": [schema, REFERENCE]}


def _limits(scalar: Any, bounds: Bounds | None) -> JsonSchema:
    if bounds is None or scalar is bool:
        return {}
    words = {
        "exclusiveMinimum": bounds.gt,
        "minimum": bounds.ge,
        "exclusiveMaximum": bounds.lt,
        "maximum": bounds.le,
    }
    return {word: bound for word, bound in words.items() if bound is not None}
