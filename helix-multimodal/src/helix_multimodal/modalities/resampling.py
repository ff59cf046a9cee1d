"""Sound as a stream of blocks: its channels mixed, its rate changed, its blocks cut to one length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import soxr

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray


def mixed(samples: NDArray[Any], n_channels: int | None) -> NDArray[Any]:
    """Return samples (T, C) with so many channels.

    One channel is the mean of all. Two are those of sound that has one, twice, and otherwise the first two,
    which in files are left and right.
    """
    if n_channels is None or samples.shape[1] == n_channels:
        return samples
    if n_channels == 1:
        mean: NDArray[Any] = samples.mean(1, keepdims=True, dtype=np.float64)
        return mean.astype(samples.dtype)
    return samples[:, :2] if samples.shape[1] > 2 else np.repeat(samples, 2, 1)


def resampled(blocks: Iterable[NDArray[Any]], rate: int, to: int) -> Iterator[NDArray[Any]]:
    """Yield blocks (T, C) at another rate; joined they are the same, however the sound is cut into blocks.

    The filter is soxr's of high quality, whose delay is taken off.
    """
    if rate == to:
        yield from blocks
        return
    stream: Any = None
    for block in blocks:
        if stream is None:
            like = block[:0]
            stream = soxr.ResampleStream(rate, to, block.shape[1], dtype=str(block.dtype))
        yield stream.resample_chunk(block).copy()
    if stream is not None:
        yield stream.resample_chunk(like, last=True).copy()


def regular(blocks: Iterable[NDArray[Any]], size: int, most: int | None = None) -> Iterator[NDArray[Any]]:
    """Yield blocks (T, C) of one length, the last one shorter, and no more samples than `most` together."""
    held: list[NDArray[Any]] = []
    n_held = given = 0
    for block in blocks:
        held.append(block)
        n_held += len(block)
        while n_held >= size and (most is None or given + size <= most):
            joined = np.concatenate(held)
            yield joined[:size]
            held, n_held, given = [joined[size:]], n_held - size, given + size
    left = np.concatenate(held) if held else None
    if left is not None and most is not None:
        left = left[: most - given]
    if left is not None and len(left):
        yield left
