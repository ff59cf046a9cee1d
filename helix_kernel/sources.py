"""Finds the source of what a component names, importing none of it."""

from __future__ import annotations

import ast
import sys
from contextlib import suppress
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


def find_module(name: str) -> ModuleSpec | None:
    """Return where a module lies, or None where there is none; neither it nor its parents are imported.

    Args:
        name: Its dotted name.
    """
    path: Sequence[str] | None = None
    spec: ModuleSpec | None = None
    parts = name.split(".")
    for depth in range(len(parts)):
        if depth and path is None:  # its parent is no package
            return None
        spec = _find(".".join(parts[: depth + 1]), path)
        if spec is None:
            return None
        path = None if spec.submodule_search_locations is None else list(spec.submodule_search_locations)
    return spec


def outermost_package(name: str) -> tuple[str, ModuleSpec] | None:
    """Return the outermost package (or module) around a module that is no namespace package.

    A namespace package may be shared by distributions; what this returns belongs to one.

    Args:
        name: Dotted name of the module.
    """
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        package = ".".join(parts[:depth])
        spec = find_module(package)
        if spec is None:
            return None
        if spec.origin is not None:
            return package, spec
    return None


def source_file(spec: ModuleSpec) -> Path | None:
    """Return the Python file of a module, or None where it is compiled, built in, or in an archive."""
    if spec.origin is None or not spec.origin.endswith(".py"):
        return None
    path = Path(spec.origin)
    return path if path.is_file() else None


def source_files(spec: ModuleSpec) -> list[tuple[str, Path]]:
    """Return the Python files of a package (or module), each with its path below it, sorted."""
    own = source_file(spec)
    if spec.submodule_search_locations is None:
        return [] if own is None else [(own.name, own)]
    roots = [Path(root) for root in spec.submodule_search_locations]
    found = [(file.relative_to(root).as_posix(), file) for root in roots for file in root.rglob("*.py")]
    return sorted(found)


def may_define(spec: ModuleSpec, name: str) -> bool:
    """Whether a module has an attribute of that name, as far as its text tells; True where it does not.

    Args:
        spec: The module.
        name: Dotted; its first part is looked for.
    """
    file = source_file(spec)
    if file is None:
        return True
    with suppress(SyntaxError, UnicodeDecodeError):  # importing it says what is wrong
        names = _names(file, file.stat().st_mtime_ns)
        return name.partition(".")[0] in names or not names.isdisjoint(("*", "__getattr__"))
    return True


def _find(name: str, path: Sequence[str] | None) -> ModuleSpec | None:
    for finder in sys.meta_path:
        find_spec = getattr(finder, "find_spec", None)
        if find_spec is None:
            continue
        try:
            spec: ModuleSpec | None = find_spec(name, path)
        except KeyError:  # a namespace package whose parent, not being imported, cannot be asked for its path
            return _namespace(name, path or ())
        if spec is not None:
            return spec
    return None


def _namespace(name: str, path: Iterable[str]) -> ModuleSpec:
    spec = ModuleSpec(name, None, is_package=True)
    folders = [Path(root, name.rpartition(".")[2]) for root in path]
    spec.submodule_search_locations = [str(folder) for folder in folders if folder.is_dir()]
    return spec


@cache
def _names(file: Path, _mtime_ns: int) -> frozenset[str]:
    """Return what a module binds at its top level, ``*`` among it where its text does not tell all."""
    text = file.read_text(encoding="utf-8")
    found = frozenset(_bound(ast.parse(text).body))
    return found | {"*"} if "globals()" in text or "global " in text else found


def _bound(body: Iterable[ast.AST]) -> Iterator[str]:
    for node in body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                yield from (alias.asname or alias.name.partition(".")[0] for alias in aliases)
            case ast.expr():
                names = (part for part in ast.walk(node) if isinstance(part, ast.Name))
                yield from (part.id for part in names if isinstance(part.ctx, ast.Store))
            case _:  # an assignment, or a statement that holds others: if, try, with, for
                yield from _bound(ast.iter_child_nodes(node))
