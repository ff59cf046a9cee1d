"""What a modality is: a kind of data that can be told from others, loaded, encoded and written back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import attrs

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    Source = str | os.PathLike[str] | BinaryIO
    """A path, or a binary file that is open for reading or for writing, from where it stands."""


@attrs.frozen(kw_only=True, eq=False)
class Sample:
    """What one file holds, decoded.

    Args:
        arrays: By name, such as ``pixels`` (H, W, 3) uint8, ``waveform`` (C, T) float32, ``points`` (N, 3)
            float64 beside ``colours``, or ``timestamps`` (T,) in seconds. The modality says which and how.
        rate: Elements of the time axis in a second (Hz), where the data have one rate.
        metadata: What else the file says, such as an orientation: strings, numbers and booleans by name.
    """

    arrays: Mapping[str, NDArray[Any]]
    rate: float | None = None
    metadata: Mapping[str, str | int | float | bool] = attrs.field(factory=dict)

    def differences(self, other: Sample, *, tolerance: float = 0.0) -> list[str]:
        """Return what differs, a line for each array and for the rate; nothing where the two are equal.

        Args:
            other: What this one is compared with. Metadata are not: no tensor carries them.
            tolerance: Largest difference of two elements that counts as none. NaN equals NaN.
        """
        found = [f"there is no array {name!r}" for name in self.arrays if name not in other.arrays]
        found += [f"there is a new array {name!r}" for name in other.arrays if name not in self.arrays]
        for name, array in self.arrays.items():
            if name in other.arrays and (said := _difference(array, other.arrays[name], tolerance)):
                found.append(f"array {name!r} {said}")
        if self.rate != other.rate:
            found.append(f"the rate was {self.rate} and is {other.rate}")
        return found


class Modality(Protocol):
    """What a component of kind ``modality`` is.

    Attributes:
        dtype: Name of the dtype of what `encode` returns, such as ``"uint8"``.
        shape: Its shape; None stands for a length that differs between samples.
        suffix: How names of the files that `save` writes end, such as ``".png"``.
        tolerance: Most that an element of an array may change on its way through a tensor and a file and
            back; 0 where nothing is lost.
        framed: Whether a file says how long it is, so that `load` refuses one that was cut short. False for
            data such as plain text, any part of which is whole.
    """

    dtype: str
    shape: tuple[int | None, ...]
    suffix: str
    tolerance: float
    framed: bool

    def sniff(self, head: bytes, name: str | None) -> float:
        """Return how likely a file is of this modality, 0 to 1; above 0.5 it is to be tried.

        Args:
            head: The file's first bytes, as many as there are up to some thousands; maybe none.
            name: The file's name, which may lie: what the bytes say counts for more.
        """
        ...

    def load(self, source: Source) -> Sample:
        """Read a file.

        Raises:
            DataError: There is none, or it is damaged, cut short, or of another kind.
        """
        ...

    def encode(self, sample: Sample) -> Tensor:
        """Return a sample as a tensor of `dtype` and `shape`, on the CPU, in memory of its own."""
        ...

    def decode(self, tensor: Tensor) -> Sample:
        """Return the sample of a tensor as `encode` makes them, or as a model does."""
        ...

    def save(self, sample: Sample, target: Source) -> None:
        """Write a file that `load` reads.

        A path holds the whole new file afterwards or, after an error, what it held before.

        Raises:
            InputError: The sample is none that such a file can hold.
        """
        ...

    def samples(self, seed: int) -> Sequence[Sample]:
        """Return small samples made up for tests, at least two that differ, which depend on the seed alone.

        They should reach what is special about the modality: an odd length, one channel and several, the
        ends of the range of values. The conformance suite sends them through all the other methods.
        """
        ...


def _difference(array: NDArray[Any], other: NDArray[Any], tolerance: float) -> str:
    """Return how two arrays differ, or nothing."""
    import numpy as np

    if array.shape != other.shape:
        return f"had shape {array.shape} and has {other.shape}"
    if array.dtype != other.dtype:
        return f"was of {array.dtype} and is of {other.dtype}"
    if array.dtype.kind not in "buifc":
        return "" if np.array_equal(array, other) else "holds other values"
    wide = np.complex128 if array.dtype.kind == "c" else np.float64
    left, right = array.astype(wide), other.astype(wide)
    same = (array == other) | (np.isnan(left) & np.isnan(right))
    with np.errstate(invalid="ignore"):
        wrong = ~(same | (np.abs(left - right) <= tolerance))
    if not wrong.any():
        return ""
    place = tuple(int(index) for index in np.argwhere(wrong)[0])
    return (
        f"has {int(wrong.sum())} of {array.size} elements off by more than {tolerance:g}, the first at "
        f"{list(place)}: it was {array[place]} and is {other[place]}"
    )
