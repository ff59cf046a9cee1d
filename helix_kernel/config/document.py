"""Reads a TOML config into one plain table: `extends`, overrides, then ``${…}`` references."""

from __future__ import annotations

import copy
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helix_kernel.errors import ConfigError, InputError, Problem, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Table = dict[str, Any]
_REFERENCE = re.compile(r"\$\{([^${}]*)\}")


def read_document(path: str | Path, overrides: Sequence[str] = ()) -> Table:
    """Read a config file, the files that it extends, and overrides on top.

    Args:
        path: The TOML file.
        overrides: Assignments ``"section.key=value"``; the value is TOML, or text where it is
            not TOML.

    Returns:
        The merged table, references not yet resolved.

    Raises:
        InputError: A file is missing, or files extend each other in a circle.
        ConfigError: A file is not TOML, or an override not an assignment.

    A base's table whose ``use`` the file changes is dropped, for its options are another
    component's; an override of ``use`` keeps the options that stand beside it.
    """
    table = _read_with_bases(Path(path), ())
    for override in overrides:
        _apply(table, override)
    return table


def parse_document(text: str, source: str) -> Table:
    """Parse TOML text.

    Raises:
        ConfigError: It is not TOML; the message has line and column.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([Problem("", f"not valid TOML: {error}")], source) from error


def resolve_references(table: Table, default: Callable[[str], Any]) -> tuple[Table, list[Problem]]:
    """Replace every ``${section.key}`` by the value that it names.

    A text that is one reference takes the value with its type; a reference within a longer
    text is replaced by the value as TOML writes it (text without its quotes).

    Args:
        table: The merged table.
        default: Returns the default of an option that the table leaves out, by its path, or
            raises KeyError.

    Returns:
        The new table, and a problem for each reference that names nothing or itself.
    """
    problems: dict[str, Problem] = {}  # by path, since a value is expanded once for each reference to it

    def value_at(path: str, trail: tuple[str, ...]) -> Any:
        try:
            found = _at(table, path)
        except KeyError:
            found = default(path)
        return expand(found, path, trail)

    def expand(value: Any, path: str, trail: tuple[str, ...]) -> Any:
        if isinstance(value, dict):
            return {key: expand(item, _join(path, key), trail) for key, item in value.items()}
        if isinstance(value, list):
            return [expand(item, f"{path}[{index}]", trail) for index, item in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        return replace(value, path, (*trail, path))

    def replace(text: str, path: str, trail: tuple[str, ...]) -> Any:
        whole = _REFERENCE.fullmatch(text)
        try:
            if whole:
                return look_up(whole[1].strip(), trail)
            return _REFERENCE.sub(lambda match: _as_text(match[0], look_up(match[1].strip(), trail)), text)
        except LookupError as error:
            problems.setdefault(path, Problem(path, str(error.args[0])))
            return text

    def look_up(name: str, trail: tuple[str, ...]) -> Any:
        if any(step == name or step.startswith(f"{name}.") for step in trail):
            raise LookupError(f"${{{name}}} refers to itself: {' -> '.join([*trail, name])}")
        try:
            return value_at(name, trail)
        except KeyError:
            hint = did_you_mean(name, list(paths(table)))
            raise LookupError(f"${{{name}}} refers to no value of this config.{hint}") from None

    return expand(table, "", ()), list(problems.values())


def paths(table: Table, prefix: str = "") -> Iterator[str]:
    """Yield the dotted path of every value in a table."""
    for key, value in table.items():
        path = _join(prefix, key)
        yield path
        if isinstance(value, dict):
            yield from paths(value, path)


def merge(base: Table, over: Table) -> Table:
    """Return `base` with `over` on top; a table that changes its `use` starts anew."""
    merged = dict(base)
    for key, value in over.items():
        known = merged.get(key)
        if isinstance(known, dict) and isinstance(value, dict) and _same_component(known, value):
            merged[key] = merge(known, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _same_component(base: Table, over: Table) -> bool:
    return "use" not in over or over["use"] == base.get("use")


def _read_with_bases(path: Path, trail: tuple[Path, ...]) -> Table:
    resolved = path.resolve()
    if resolved in trail:
        circle = " -> ".join(str(step) for step in (*trail, resolved))
        raise InputError(f"config files extend each other in a circle: {circle}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError([Problem("", f"not UTF-8 text: {error}")], str(path)) from error
    except OSError as error:
        by = f", which {trail[-1]} extends" if trail else ""
        reason = error.strerror or type(error).__name__
        raise InputError(f"config file {str(path)!r}{by}: {reason}") from error
    table = parse_document(text, str(path))
    given = table.pop("extends", [])
    bases = [given] if isinstance(given, str) else given
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        allowed = "allowed is a file name or a list of them"
        raise ConfigError([Problem("extends", f"given {given!r}, {allowed}")], str(path))
    merged: Table = {}
    for base in bases:
        merged = merge(merged, _read_with_bases(path.parent / base, (*trail, resolved)))
    return merge(merged, table)


def _apply(table: Table, override: str) -> None:
    name, sign, text = override.partition("=")
    name = name.strip()
    keys = name.split(".")
    if not sign or not all(keys):
        wrong = f"override {override!r} is not of the form section.key=value"
        raise ConfigError([Problem("", wrong)], "overrides")
    holder = table
    for key in keys[:-1]:
        nested = holder.setdefault(key, {})
        if not isinstance(nested, dict):
            wrong = f"override {override!r}: {key!r} is {nested!r}, not a table"
            raise ConfigError([Problem(name, wrong)], "overrides")
        holder = nested
    holder[keys[-1]] = _value(text.strip())


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        return text


def _as_text(reference: str, value: Any) -> str:
    whole = "a table" if isinstance(value, dict) else "a list" if isinstance(value, list) else None
    if whole:
        raise LookupError(f"{reference} is {whole}, which cannot stand within a text")
    return str(value).lower() if isinstance(value, bool) else str(value)


def _at(table: Table, path: str) -> Any:
    value: Any = table
    for key in path.split("."):
        if not isinstance(value, dict) or key not in value:
            raise KeyError(path)
        value = value[key]
    return value


def _join(prefix: str, key: str) -> str:
    return f"{prefix}.{key}" if prefix else key
