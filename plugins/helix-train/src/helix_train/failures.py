"""Turns what ends a run from outside into errors that say what to do, and foresees what can be foreseen."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_leaves

from helix_kernel.errors import HelixError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


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
    except (HelixError, OSError, torch.OutOfMemoryError) as error:
        own = _as_own(error)
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


def state_size(state: Any) -> int:
    """Return the bytes of all tensors and arrays of a state; one that stands twice counts once."""
    leaves = {id(leaf): leaf.nbytes for leaf in tree_leaves(state) if hasattr(leaf, "nbytes")}
    return sum(leaves.values())


def _as_own(error: BaseException) -> HelixError:
    if isinstance(error, HelixError):
        return error
    if isinstance(error, OSError):
        return HelixError(f"{error.filename or 'the run'}: {error.strerror or error}")
    reason = str(error).partition(". ")[0]
    return HelixError(
        f"a step needs more memory than the device has ({reason}); lower data.batch_size and raise "
        "trainer.accumulate, or set trainer.activation_checkpointing=true, or trainer.chunk_len"
    )
