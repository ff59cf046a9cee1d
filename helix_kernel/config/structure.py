"""Turns TOML values into the types that options declare, strictly, keeping the path of each error.

cattrs does the work; the hooks here take away its coercions (a config's ``"5"`` is no integer)
and give it unions and choices. Its exception groups carry the paths that `problems` prints.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import cattrs
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn

from helix_kernel.config.schema import schema_of_class, with_new_names
from helix_kernel.errors import ArgumentError, ConfigError, Problem, did_you_mean
from helix_kernel.options import nested_marker

_WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "text", Path: "a path"}


def make_converter() -> cattrs.Converter:
    """Return a strict converter; hooks for nested components are added by whoever resolves them."""
    converter = cattrs.Converter(forbid_extra_keys=True)
    for scalar in (bool, int, float, str):
        converter.register_structure_hook(scalar, _strict)
    converter.register_structure_hook(Path, lambda value, _: _path(value))
    converter.register_structure_hook_factory(_is_literal, lambda t: lambda value, _: _choice(value, t))
    converter.register_structure_hook_factory(_is_union, lambda t: lambda v, _: _member(converter, v, t))
    converter.register_structure_hook_factory(_is_sequence, lambda t: lambda v, _: _elements(converter, v, t))
    converter.register_structure_hook_factory(_is_mapping, lambda t: lambda v, _: _entries(converter, v, t))
    converter.register_structure_hook_factory(attrs.has, lambda cls: _record(converter, cls))
    return converter


def problems(error: BaseException, path: str) -> list[Problem]:
    """Return what an error of structuring the value at `path` says, one problem for each cause."""
    if isinstance(error, ConfigError):
        return [Problem(under(path, problem.path), problem.message) for problem in error.problems]
    if isinstance(error, ClassValidationError):
        with_notes, without = error.group_exceptions()
        found = [p for cause, note in with_notes for p in _field_problems(cause, path, note.name)]
        return found + [p for cause in without for p in problems(cause, path)]
    if isinstance(error, ForbiddenExtraKeysError):
        known = [field.name for field in attrs.fields(error.cl)] if attrs.has(error.cl) else []
        return [
            Problem(under(path, key), f"unknown option.{did_you_mean(key, known)}")
            for key in sorted(error.extra_fields)
        ]
    return [Problem(path, str(error) or type(error).__name__)]


def under(path: str, name: str) -> str:
    """Return the path of what is called `name` (or ``[index]``) below `path`."""
    return f"{path}{'.' if path and name and not name.startswith('[') else ''}{name}"


def describe(annotation: Any) -> str:
    """Return in words what values a type allows."""
    if annotation in _WORDS:
        return _WORDS[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        marker = nested_marker(annotation)
        return f"a table with a {marker.kind} in `use`" if marker else describe(arguments[0])
    if origin is typing.Literal:
        return " or ".join(repr(choice) for choice in arguments)
    if _is_union(annotation):
        return " or ".join(describe(member) for member in arguments if member is not type(None))
    if _is_sequence(annotation):
        inner = [describe(a) for a in arguments if a is not Ellipsis]
        fixed = origin is tuple and Ellipsis not in arguments
        return f"[{', '.join(inner)}]" if fixed else f"a list, each {inner[0]}" if inner else "a list"
    if _is_mapping(annotation) or attrs.has(annotation):
        return "a table"
    return "any value" if annotation is Any else getattr(annotation, "__name__", str(annotation))


def given(value: Any) -> str:
    """Return in words what a config gave."""
    names = {bool: "true or false", int: "an integer", float: "a number", str: "text", list: "a list"}
    if isinstance(value, Mapping):
        return "given a table"
    shown = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return f"given {shown} ({names.get(type(value), type(value).__name__)})"


def _field_problems(error: BaseException, path: str, name: str) -> list[Problem]:
    if isinstance(error, KeyError) and error.args == (name,):  # how cattrs says that a key is absent
        return [Problem(under(path, name), "missing; it is required")]
    return problems(error, under(path, name))


def _strict(value: Any, kind: Any) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise ArgumentError(f"{given(value)}, allowed is {_WORDS[kind]}")
    return value


def _path(value: Any) -> Path:
    if not isinstance(value, str | Path):
        raise ArgumentError(f"{given(value)}, allowed is {_WORDS[Path]}")
    return Path(value)


def _choice(value: Any, annotation: Any) -> Any:
    choices = typing.get_args(annotation)
    for choice in choices:
        if value == choice and type(value) is type(choice):
            return choice
    hint = did_you_mean(value, [c for c in choices if isinstance(c, str)]) if isinstance(value, str) else ""
    raise ArgumentError(f"{given(value)}, allowed is {describe(annotation)}.{hint}")


def _member(converter: cattrs.Converter, value: Any, annotation: Any) -> Any:
    if value is None and type(None) in typing.get_args(annotation):
        return None
    members = [member for member in typing.get_args(annotation) if member is not type(None)]
    for member in members:
        try:
            return converter.structure(value, member)
        except Exception:
            if len(members) == 1:
                raise
    raise ArgumentError(f"{given(value)}, allowed is {describe(annotation)}")


def _elements(converter: cattrs.Converter, value: Any, annotation: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise ArgumentError(f"{given(value)}, allowed is {describe(annotation)}")
    origin = typing.get_origin(annotation) or annotation
    arguments = typing.get_args(annotation) or (Any,)
    fixed = origin is tuple and Ellipsis not in arguments
    if fixed and len(arguments) != len(value):
        raise ArgumentError(f"given {len(value)} values, allowed is {describe(annotation)}")
    wanted = arguments if fixed else arguments[:1] * len(value)
    pairs = ((f"[{index}]", item, kind) for index, (item, kind) in enumerate(zip(value, wanted, strict=True)))
    items = _collect(converter, pairs).values()
    return tuple(items) if origin is tuple else list(items)


def _entries(converter: cattrs.Converter, value: Any, annotation: Any) -> Any:
    if not isinstance(value, Mapping):
        raise ArgumentError(f"{given(value)}, allowed is {describe(annotation)}")
    kind = (*typing.get_args(annotation), Any, Any)[1]
    return _collect(converter, ((key, item, kind) for key, item in value.items()))


def _collect(converter: cattrs.Converter, items: Iterable[tuple[str, Any, Any]]) -> dict[str, Any]:
    found: list[Problem] = []
    done: dict[str, Any] = {}
    for place, item, kind in items:
        try:
            done[place] = converter.structure(item, kind)
        except Exception as error:  # noqa: BLE001 - every cause becomes a line of the report
            found.extend(problems(error, place))
    if found:
        raise ConfigError(found)
    return done


def _record(converter: cattrs.Converter, cls: Any) -> Callable[[Any, Any], Any]:
    structure = make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True)

    def by_new_names(value: Any, kind: Any) -> Any:
        if isinstance(value, Mapping):
            value = with_new_names(schema_of_class(cls), value, cls.__name__)
        return structure(value, kind)

    return by_new_names


def _is_literal(annotation: Any) -> bool:
    return typing.get_origin(annotation) is typing.Literal


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def _is_sequence(annotation: Any) -> bool:
    origin = typing.get_origin(annotation) or annotation
    return origin in (list, tuple, Sequence)


def _is_mapping(annotation: Any) -> bool:
    origin = typing.get_origin(annotation) or annotation
    return origin in (dict, Mapping)
