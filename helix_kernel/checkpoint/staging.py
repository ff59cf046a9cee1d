"""A copy of a state that a thread can write while training goes on changing the state."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from helix_kernel.checkpoint.arrays import (
    byte_pieces,
    on_accelerator,
    pinned_memory,
    start_copy,
    wait_for_copies,
)
from helix_kernel.checkpoint.pack import ALIGNMENT

if TYPE_CHECKING:
    from helix_kernel.checkpoint.writer import Content

_THREADS = 4


class Staging:
    """Memory that is allocated once and takes one copy after another."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)
        self._pinned = False

    def copy(self, content: Content) -> Content:
        """Return the same content with its arrays copied; the copy before must not be in use any more.

        Tensors of an accelerator go straight to pinned memory, the others by several threads.
        """
        offsets: dict[str, int] = {}
        nbytes = 0
        for name, layout in content.layouts.items():
            offsets[name] = nbytes
            nbytes += -(-layout.nbytes // ALIGNMENT) * ALIGNMENT
        self._reserve(nbytes, pinned=any(map(on_accelerator, content.arrays.values())))
        staged = {
            name: self._memory[offsets[name] : offsets[name] + layout.nbytes]
            .view(layout.dtype)
            .reshape(layout.shape)
            for name, layout in content.layouts.items()
        }
        self._fill(content.arrays, staged)
        return attrs.evolve(content, arrays=staged)

    def _reserve(self, nbytes: int, *, pinned: bool) -> None:
        if len(self._memory) < nbytes or self._pinned != pinned:
            self._memory = np.empty(0, np.uint8)  # let go of the old one first
            self._memory = pinned_memory(nbytes) if pinned else np.empty(nbytes, np.uint8)
            self._pinned = pinned

    def _fill(self, arrays: dict[str, Any], staged: dict[str, np.ndarray]) -> None:
        far = [name for name, array in arrays.items() if on_accelerator(array)]
        for name in far:
            start_copy(arrays[name], staged[name])
        near = sorted(arrays.keys() - set(far), key=lambda name: -staged[name].nbytes)
        with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
            for _ in pool.map(lambda name: _copy(arrays[name], staged[name]), near):
                pass
        if far:
            wait_for_copies()


def _copy(array: Any, target: np.ndarray) -> None:
    content = target.reshape(-1).view(np.uint8)
    start = 0
    for piece in byte_pieces(array, target.dtype):
        content[start : start + len(piece)] = piece
        start += len(piece)
