"""The bytes that memories are measured on: code and prose that every environment of this repository has."""

from __future__ import annotations

import ast
import random
import sysconfig
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

Corpus = Literal["python-stdlib", "prose"]
# Packages of constraints.txt whose docstrings are longest.
_WRITTEN_ABOUT = ("numpy", "scipy", "torch", "transformers")
_LEAST_WORDS = 60


def corpus(name: Corpus, *, seed: int, n_bytes: int) -> bytes:
    """Return the first bytes of a corpus whose documents are shuffled.

    ``python-stdlib`` is the standard library's sources, a document a file; ``prose`` is what numpy, scipy,
    torch and transformers say of themselves: docstrings of sixty words or more, a document each.
    """
    documents = list(_sources() if name == "python-stdlib" else _docstrings())
    random.Random(seed).shuffle(documents)
    taken = b"".join(documents)[:n_bytes]
    if len(taken) < n_bytes:
        raise SystemExit(f"{name} has {len(taken):,} bytes, {n_bytes:,} were asked for")
    return taken


@cache
def _sources() -> tuple[bytes, ...]:
    library = Path(sysconfig.get_path("stdlib"))
    return tuple(path.read_bytes() for path in _files(library) if "site-packages" not in path.parts)


@cache
def _docstrings() -> tuple[bytes, ...]:
    found: dict[str, None] = {}
    for package in _WRITTEN_ABOUT:
        origin = getattr(find_spec(package), "origin", None)
        for path in _files(Path(origin).parent) if origin else []:
            found |= dict.fromkeys(_said_in(path))
    return tuple(text.encode() for text in found)


def _said_in(path: Path) -> list[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return []
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    said = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds)]
    return [text + "\n\n" for text in said if len(text.split()) >= _LEAST_WORDS]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if path.is_file())
