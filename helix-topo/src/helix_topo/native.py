"""The shared library of compiled loops: where it lies, and how its functions are called."""

from __future__ import annotations

import ctypes
import os
import platform
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helix_kernel.errors import HelixError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

FILE_VARIABLE = "HELIX_TOPO_LIBRARY"
_ABI = 1


class LibraryError(HelixError):
    """The compiled library is missing, or is not of this version of the package."""


@cache
def function(name: str, *, result: Any = None, arguments: tuple[Any, ...] = ()) -> Callable[..., Any]:
    """Return a function of the library.

    Args:
        name: Its name, without the prefix ``helix_topo_``.
        result: What it returns, a ctypes type; None for nothing.
        arguments: What it takes, ctypes types; `ctypes.c_void_p` for what `address` gives.

    Raises:
        LibraryError: There is no library, or it does not have this function.
    """
    library = _library()
    try:
        found = getattr(library, f"helix_topo_{name}")
    except AttributeError:
        raise LibraryError(f"{_path()} has no function {name!r}: install helix-topo anew") from None
    found.restype, found.argtypes = result, arguments
    return found  # type: ignore[no-any-return]  # ctypes gives functions by attribute


def address(array: np.ndarray[Any, Any]) -> int:
    """Return where the elements of an array lie, which must be one after another."""
    assert array.flags.c_contiguous
    return array.ctypes.data


@cache
def _library() -> ctypes.CDLL:
    path = _path()
    if path is None:
        raise LibraryError("helix-topo has no compiled library: install helix-topo anew")
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise LibraryError(f"{path} cannot be loaded: {error}") from error
    library.helix_topo_abi.restype = ctypes.c_int64
    if library.helix_topo_abi() != _ABI:
        raise LibraryError(f"{path} is of another version: install helix-topo anew")
    return library


def _path() -> Path | None:
    """Return the library's file. ``HELIX_TOPO_LIBRARY`` names another; an editable install keeps it apart."""
    given = os.environ.get(FILE_VARIABLE)
    if given:
        return Path(given)
    import helix_topo

    suffix = ".dylib" if platform.system() == "Darwin" else ".so"
    paths = (Path(folder) / "lib" / f"libhelix_topo{suffix}" for folder in helix_topo.__path__)
    return next((path for path in paths if path.exists()), None)
