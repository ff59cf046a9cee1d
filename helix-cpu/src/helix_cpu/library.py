"""The shared library of kernels: which instruction set serves, and how a kernel is called."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import torch

from helix_kernel.errors import ArgumentError, HelixError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable

ISA_VARIABLE = "HELIX_CPU_ISA"
FOLDER_VARIABLE = "HELIX_CPU_LIBRARY"
_ISAS = ("avx512", "avx2", "neon", "baseline")  # the most wanted first
_OUT_OF_MEMORY = 2
_RUNTIMES = ("libgomp", "libiomp5", "libomp")


class LibraryError(HelixError):
    """The kernels' library is missing, or does not fit this processor or this package."""


@attrs.frozen
class Library:
    """A loaded library.

    Args:
        isa: The instruction set that it was compiled for.
        path: Its file.
        handle: The library, as ctypes has it.
        threaded: Whether it shares PyTorch's OpenMP runtime; otherwise it uses one thread.
    """

    isa: str
    path: Path
    handle: ctypes.CDLL
    threaded: bool


class Kernel:
    """A function of the library, looked up at its first call, anew when another library is in use.

    Args:
        name: Its name, without the prefix ``helix_``.
        layout: Its arguments as `struct` writes them, such as ``"12q2d"``: addresses and integers
            first, then floating-point numbers.

    Attributes:
        pack: Makes of the arguments the block of bytes that `call` takes.
    """

    def __init__(self, name: str, layout: str) -> None:
        self.name = name
        self.pack = struct.Struct("=" + layout).pack
        self._library: Library | None = None
        self._call: Callable[[bytes, int, int], int] | None = None

    def __call__(self, *arguments: float) -> None:
        """Call it on as many threads as PyTorch uses.

        Raises:
            LibraryError: There is no library, or it is of another version.
            MemoryError: There was no memory for what the kernel keeps while it runs.
        """
        self.call(self.pack(*arguments))

    def call(self, packed: bytes) -> None:
        """Call it with arguments that are packed already; raises as calling the object does."""
        if self._call is None or self._library is not _USED[0]:
            self._library = library()
            self._call = self._look_up(self._library)
        status = self._call(packed, len(packed), torch.get_num_threads())
        if status:
            self._fail(status)

    def _look_up(self, used: Library) -> Callable[[bytes, int, int], int]:
        try:
            function = getattr(used.handle, f"helix_{self.name}")
        except AttributeError:
            raise LibraryError(f"{used.path} has no kernel {self.name!r}: install helix-cpu anew") from None
        function.argtypes = (ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64)
        function.restype = ctypes.c_int
        return function  # type: ignore[no-any-return]  # ctypes gives functions by attribute

    def _fail(self, status: int) -> None:
        if status == _OUT_OF_MEMORY:
            raise MemoryError(f"helix-cpu: no memory for the kernel {self.name!r}")
        raise LibraryError(f"the kernel {self.name!r} takes other arguments: install helix-cpu anew")


def library() -> Library:
    """Return the library in use, loading it at the first call.

    ``HELIX_CPU_ISA`` names the instruction set; without it, the best of this processor. ``HELIX_CPU_LIBRARY``
    names the folder to load from, in place of the installed one.

    Raises:
        LibraryError: There is no library, or not the one asked for.
        ArgumentError: ``HELIX_CPU_ISA`` names no instruction set.
    """
    if _USED[0] is None:
        use(os.environ.get(ISA_VARIABLE) or None)
    assert _USED[0] is not None
    return _USED[0]


def use(isa: str | None = None) -> Library | None:
    """Load the library of an instruction set, the best one where None, and let kernels call it from now on.

    Returns:
        The library in use before, or None.

    Raises:
        LibraryError: It was not built, or this processor cannot run it.
        ArgumentError: There is no instruction set of that name.
    """
    if isa is not None and isa not in _ISAS:
        raise ArgumentError(
            f"{ISA_VARIABLE} is {isa!r}, allowed is one of {list(_ISAS)}.{did_you_mean(isa, _ISAS)}"
        )
    found = supported()
    if not found:
        raise LibraryError(f"no kernels in {[str(folder) for folder in _folders()]}: install helix-cpu anew")
    if isa is not None and isa not in found:
        raise LibraryError(f"{ISA_VARIABLE} is {isa!r}, allowed on this processor is one of {list(found)}")
    return restore(_load(isa or found[0], _folders()))


def restore(used: Library | None) -> Library | None:
    """Put a library into use, as `use` returned it; returns the one in use before."""
    before, _USED[0] = _USED[0], used
    return before


def supported() -> tuple[str, ...]:
    """Return the instruction sets that are built and that this processor has, the best first."""
    built = tuple(isa for isa in _ISAS if _find(isa, _folders()) is not None)
    if not built:
        return ()
    asked = _load(built[-1], _folders()).handle  # the plainest, which any processor of this kind runs
    return tuple(isa for isa in built if asked.helix_supports(isa.encode()))


# The library in use: a process has one, as it has one table of backends. A list, so that a kernel's test
# whether it is still the same one costs as little as can be.
_USED: list[Library | None] = [None]


@cache
def _load(isa: str, folders: tuple[Path, ...]) -> Library:
    path = _find(isa, folders)
    assert path is not None
    try:
        handle = ctypes.CDLL(str(path))
    except OSError as error:
        raise LibraryError(f"{path} cannot be loaded: {error}") from error
    fork = _fork_of_pytorch()
    if fork is not None:
        handle.helix_set_fork(fork)
    return Library(isa, path, handle, fork is not None)


def _find(isa: str, folders: tuple[Path, ...]) -> Path | None:
    suffix = ".dylib" if platform.system() == "Darwin" else ".so"
    paths = (folder / f"libhelix_cpu_{isa}{suffix}" for folder in folders)
    return next((path for path in paths if path.exists()), None)


def _folders() -> tuple[Path, ...]:
    """Return where libraries may lie: an editable install keeps them apart from the Python files."""
    given = os.environ.get(FOLDER_VARIABLE)
    if given:
        return (Path(given),)
    import helix_cpu

    return tuple(Path(folder) / "lib" for folder in helix_cpu.__path__)


def _fork_of_pytorch() -> ctypes.c_void_p | None:
    """Return GOMP_parallel of the OpenMP runtime that PyTorch has loaded, or None where it has none."""
    for path in _loaded_runtimes():
        try:
            return ctypes.cast(ctypes.CDLL(path).GOMP_parallel, ctypes.c_void_p)
        except (OSError, AttributeError):
            continue
    return None


def _loaded_runtimes() -> list[str]:
    """Return the OpenMP runtimes in this process, the one in PyTorch's own folder first."""
    maps = Path("/proc/self/maps")
    lines = maps.read_text().splitlines() if maps.exists() else []
    paths = {line.split(maxsplit=5)[5] for line in lines if len(line.split(maxsplit=5)) > 5}
    runtimes = sorted(path for path in paths if Path(path).name.startswith(_RUNTIMES))
    own = str(Path(torch.__file__).parent)
    return sorted(runtimes, key=lambda path: not path.startswith(own))
