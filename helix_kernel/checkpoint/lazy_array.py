"""An array of a checkpoint that is read when it is asked for, whole or in part."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from helix_kernel.checkpoint.regions import read_region
from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from helix_kernel.checkpoint.pack_files import Packs
    from helix_kernel.checkpoint.packed_array import PackedArray


class LazyArray:
    """An array of a checkpoint that is read, and checked, when it is indexed or converted.

    Attributes:
        name: Its path.
        shape: Its shape.
        dtype: Its numpy type.
    """

    def __init__(self, source: str, array: PackedArray, packs: Packs) -> None:
        self.name = array.name
        self.shape = array.stored.layout.shape
        self.dtype = array.stored.layout.dtype
        self._source = source
        self._array = array
        self._packs = packs

    def read(self, *, verify: bool = True) -> np.ndarray:
        """Return the whole array; see `load` for `verify` and errors."""
        out = self._array.empty(self.shape, self._source)
        self.read_into(out, (0,) * len(self.shape), verify=verify)
        return out

    def read_into(self, out: np.ndarray, origin: Sequence[int], *, verify: bool = True) -> None:
        """Read a region, cut along any axes, into memory that exists; reads only the chunks needed.

        Args:
            out: Takes it: C-ordered, of the region's shape and the array's type.
            origin: Where the region's first element stands in the array.
            verify: As for `load`.

        Raises:
            ArgumentError: The region leaves the array, or `out` is of another type or order.
            CheckpointError: As for `load`.
        """
        inside = len(origin) == out.ndim == len(self.shape) and all(
            0 <= low <= low + n <= length
            for low, n, length in zip(origin, out.shape, self.shape, strict=True)
        )
        if not inside or out.dtype != self.dtype or not out.flags.c_contiguous:
            raise ArgumentError(
                f"out is {out.dtype.name} {out.shape} at {tuple(origin)}; allowed is a C-ordered region of "
                f"array {self.name!r}, which is {self.dtype.name} {self.shape}"
            )
        read_region(self._array, out, tuple(origin), self._packs, self._source, verify=verify)

    def __getitem__(self, index: Any) -> Any:
        """Return ``array[index]``; of the first axis, only the chunks needed are read."""
        first, *rest = index if isinstance(index, tuple) and index else (index,)
        if not self.shape or not isinstance(first, int | np.integer | slice):
            return self.read()[index]
        if isinstance(first, slice):
            rows = range(self.shape[0])[first]
            low, high = (min(rows), max(rows) + 1) if rows else (0, 0)
            local: Any = [row - low for row in rows] if rows.step != 1 else slice(None)
            return self._rows(low, high)[local][(slice(None), *rest)]
        row = range(self.shape[0])[operator.index(first)]
        return self._rows(row, row + 1)[(0, *rest)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:  # noqa: FBT001 - numpy's protocol
        if copy is False:
            raise ArgumentError(f"array {self.name!r} lies on disk; it cannot become numpy's without a copy")
        return self.read().astype(dtype or self.dtype, copy=False)

    def __repr__(self) -> str:
        return f"LazyArray({self.name!r}, shape={self.shape}, dtype={self.dtype.name})"

    def _rows(self, low: int, high: int) -> np.ndarray:
        """Read rows of the first axis."""
        out = self._array.empty((high - low, *self.shape[1:]), self._source)
        self.read_into(out, (low, *([0] * (len(self.shape) - 1))))
        return out
