"""Turns what ends a run from outside into errors that say what to do, and foresees what can be foreseen."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from helix_kernel.errors import HelixError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


_OF_CPU = "DefaultCPUAllocator:"
"""What torch says in a RuntimeError where the machine has no memory left."""


@contextmanager
def told_failures(left: Callable[[], str] = str) -> Iterator[None]:
    """Raise every failure of the block as a `HelixError` that tells what is left.

    Args:
        left: Returns what there is to go on from; empty for nothing.

    Raises:
        HelixError: Memory ran out, or the system refused to read or write; with what was left as a note.
    """
    try:
        yield
    except (HelixError, OSError, MemoryError, RuntimeError) as error:
        own = _as_own(error)
        if own is None:
            raise
        if note := left():
            own.add_note(note)
        if own is error:
            raise
        raise own from error


def not_finite(what: str, *, step: int, rate: float) -> HelixError:
    """Return the error of a run whose numbers have stopped being finite.

    Args:
        what: Which they are.
        step: Steps done.
        rate: Learning rate of the first parameter group.
    """
    return HelixError(
        f"{what} after {step} steps; nothing of this is saved. Lower optimizer.lr ({rate:g} here) or "
        'trainer.clip_norm, and go on with trainer.resume="auto"'
    )


def check_disk(out: Path, size: int) -> None:
    """Raise `InputError` where not even one checkpoint has room.

    Args:
        out: The run's directory; need not exist.
        size: Bytes of a checkpoint.
    """
    if (free := disk_free(out)) < size:
        raise InputError(
            f"trainer.out: {str(out)!r} has {free:,} bytes free, and a checkpoint takes {size:,}; make room, "
            "or choose another trainer.out"
        )


def disk_free(path: Path) -> int:
    """Return the bytes that are free where a path lies, or will lie."""
    there = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    return shutil.disk_usage(there).free


def _as_own(error: BaseException) -> HelixError | None:
    """Return a failure as an error of ours, or None where it is none that comes from outside."""
    if isinstance(error, HelixError):
        return error
    if isinstance(error, OSError):
        return HelixError(f"{error.filename or 'the run'}: {error.strerror or error}")
    # torch has no type of its own for the memory of the CPU.
    _, is_of_cpu, refused = str(error).partition(_OF_CPU)
    if not (is_of_cpu or isinstance(error, MemoryError | torch.OutOfMemoryError)):
        return None
    reason = (refused or str(error) or type(error).__name__).partition(". ")[0].strip()
    return HelixError(
        f"a step needs more memory than the device has ({reason}); lower data.batch_size and raise "
        "trainer.accumulate, or set trainer.activation_checkpointing=true, or trainer.chunk_len"
    )
