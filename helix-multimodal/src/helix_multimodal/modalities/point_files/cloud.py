"""A cloud of points between a file's format and a sample, and what all formats do alike."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from helix_kernel.errors import DataError
from helix_multimodal.files import check_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


@attrs.frozen(kw_only=True, eq=False)
class Cloud:
    """N points.

    Args:
        points: (N, 3) float32 or float64.
        colours: (N, 3) uint8, where there are any.
        normals: (N, 3) floating, where there are any; of any length.
        metadata: What else the file says.
    """

    points: NDArray[Any]
    colours: NDArray[np.uint8] | None = None
    normals: NDArray[Any] | None = None
    metadata: Mapping[str, str | int | float | bool] = attrs.field(factory=dict)

    def keep(self, which: NDArray[Any]) -> Cloud:
        """Return the points of a mask or of indices."""
        return attrs.evolve(
            self,
            points=self.points[which],
            colours=None if self.colours is None else self.colours[which],
            normals=None if self.normals is None else self.normals[which],
        )


def columns(fields: Mapping[str, NDArray[Any]], names: Sequence[str]) -> NDArray[Any] | None:
    """Return columns by name side by side, (N, len(names)), or None where one is missing."""
    if not all(name in fields for name in names):
        return None
    return np.stack([fields[name] for name in names], axis=1)


def coordinates(values: NDArray[Any]) -> NDArray[Any]:
    """Return coordinates as floats that hold them exactly: float32 where that is enough for their type."""
    small = values.dtype.kind == "f" and values.dtype.itemsize <= 4
    exact = values.dtype.kind in "iu" and values.dtype.itemsize <= 2
    return np.ascontiguousarray(values, dtype=np.float32 if small or exact else np.float64)


def colours_of(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return colours of 0 to 255, whether they come as bytes, as 16 bits or as floats of 0 to 1."""
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    if values.dtype.kind in "iu":
        top = 65535 if values.dtype.itemsize > 1 and values.max(initial=0) > 255 else 255
        whole: NDArray[np.int64] = values.astype(np.int64).clip(0, top) // (top // 255)
        return whole.astype(np.uint8)
    scaled: NDArray[np.float64] = np.nan_to_num(values.astype(np.float64)) * 255
    return np.rint(scaled).clip(0, 255).astype(np.uint8)


def numbers(text: bytes, where: str, max_bytes: int, count: int = -1) -> NDArray[np.float64]:
    """Return the numbers in a text, which blanks stand between.

    Args:
        text: What holds them.
        where: What errors call the file.
        max_bytes: Bytes that the numbers may take.
        count: How many to read at most; -1 for all.

    Raises:
        DataError: Something else stands among them, or they take more than is allowed.
    """
    text = text.rstrip()
    if not text or not count:
        return np.empty(0)
    most = sum(map(text.count, (b" ", b"\n", b"\t", b"\r"))) + 1
    check_size(where, 8 * (most if count < 0 else min(most, count)), max_bytes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return np.fromstring(text.decode("ascii"), dtype=np.float64, count=count, sep=" ")
        except (DeprecationWarning, ValueError, RuntimeWarning) as error:
            raise DataError(f"{where} is damaged: where numbers should stand, there is other text") from error
