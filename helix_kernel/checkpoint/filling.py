"""The arrays of a state that a checkpoint is to be read into."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from helix_kernel.checkpoint.arrays import describe, fill, plain_view
from helix_kernel.checkpoint.dtypes import zarr_name
from helix_kernel.checkpoint.tree import Encoder
from helix_kernel.errors import IncompatibleCheckpointError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from helix_kernel.checkpoint.reader import ArrayInfo
    from helix_kernel.checkpoint.selection import Selection

_SHOWN = 5


@contextmanager
def filled(
    state: Mapping[Any, Any],
    wanted: Mapping[str, str],
    arrays: Mapping[str, ArrayInfo],
    selection: Selection,
    source: str,
) -> Iterator[dict[str, np.ndarray]]:
    """Give the memory to read each wanted array into; what is not plain memory is copied to at the end.

    Args:
        state: Holds the arrays, nested as the checkpoint's state is.
        wanted: Path in the state → path under which the checkpoint stores it.
        arrays: What the checkpoint stores.
        selection: What is asked for.
        source: The checkpoint, for errors.

    Raises:
        IncompatibleCheckpointError: An array is missing on either side, or differs in shape or type.
    """
    encoder = Encoder()
    encoder.encode(state)
    found = {path: value for path, value in encoder.arrays.items() if selection(path)}
    ties = {path: stored for path, stored in encoder.ties.items() if selection(path)}
    _refuse_misfits(found, ties, wanted, arrays, source)
    targets, copies = {}, {}
    for path, value in found.items():
        shape, dtype = describe(value, path)
        view = plain_view(value, dtype)
        if view is None:
            view = copies[path] = np.empty(shape, dtype)
        targets[path] = view
    yield targets
    for path, content in copies.items():
        fill(found[path], content)


def _refuse_misfits(
    found: Mapping[str, Any],
    ties: Mapping[str, str],
    wanted: Mapping[str, str],
    arrays: Mapping[str, ArrayInfo],
    source: str,
) -> None:
    own = [*found, *ties]
    missing = [path for path in wanted if path not in found and path not in ties]
    extra = [path for path in own if path not in wanted]
    lines = [f"{path} is in the checkpoint only{_nearest(path, extra)}" for path in missing]
    lines += [f"{path} is in the state only" for path in extra]
    for path, value in found.items():
        if path in wanted:
            shape, dtype = describe(value, path)
            info, name = arrays[wanted[path]], zarr_name(dtype)
            if (shape, name) != (info.shape, info.dtype):
                lines.append(
                    f"{path}: {info.dtype} {info.shape} in the checkpoint, {name} {shape} in the state"
                )
    lines += [
        f"{path} shares its memory with {stored} in the state, but the checkpoint holds different arrays"
        for path, stored in ties.items()
        if path in wanted
        and stored in wanted
        and arrays[wanted[path]].digest != arrays[wanted[stored]].digest
    ]
    if lines:
        more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
        raise IncompatibleCheckpointError(
            "\n  ".join(
                [f"{source} does not fit the state that it is to be read into:", *lines[:_SHOWN], *more]
            )
        )


def _nearest(path: str, extra: list[str]) -> str:
    match = nearest(path, extra)
    return f"; nearest of those in the state only: {match}" if match else ""
