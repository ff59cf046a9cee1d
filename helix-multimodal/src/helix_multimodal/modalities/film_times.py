"""When frames are shown: exact times beside a container's milliseconds, and another rate than their own."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import numpy as np

from helix_kernel.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

TAG = "FRAME_TIMES"
"""Tag of a Matroska film that holds the exact times of its frames, whose packets have whole milliseconds."""
_Frame = TypeVar("_Frame")


@attrs.frozen
class Times:
    """The exact times of frames in seconds, by their milliseconds.

    Args:
        rate: Frames a second; None where they have no one rate.
        start: Time of the first frame, where all others follow from the rate.
        listed: Times by milliseconds, where they do not.
    """

    rate: float | None
    start: float = 0.0
    listed: dict[int, float] = attrs.field(factory=dict)

    def exact(self, seconds: float) -> float:
        """Return the time of the same millisecond; where none is known, what is given, in seconds."""
        wanted = milliseconds(seconds)
        if self.listed or not self.rate:
            return self.listed.get(wanted, seconds)
        found = self.start + max(0, round((seconds - self.start) * self.rate)) / self.rate
        return found if milliseconds(found) == wanted else seconds


def written(times: NDArray[Any], rate: float | None) -> str:
    """Return what the tag says of the times (T,) of all frames.

    Raises:
        InputError: Two frames share a millisecond, or times go back, are negative or not finite.
    """
    finite = bool(np.isfinite(times).all()) and (not len(times) or (times[0] >= 0 and times[-1] < 1 << 40))
    if not finite or len({milliseconds(time) for time in times}) < len(times) or (np.diff(times) <= 0).any():
        raise InputError(
            "the sample's timestamps must be seconds from 0, each at least a millisecond after the one before"
        )
    start = float(times[0]) if len(times) else 0.0
    told: dict[str, Any] = {"rate": rate, "start": start}
    if rate is None or not np.array_equal(start + np.arange(len(times)) / rate, times):
        told["times"] = times.tolist()
    return json.dumps(told)


def read(tag: str | None) -> Times | None:
    """Return what a tag says; None where there is none, or one that `written` does not write."""
    try:
        told = json.loads(tag or "")
        rate, start, listed = (
            told["rate"],
            float(told["start"]),
            [float(time) for time in told.get("times", [])],
        )
        rate = None if rate is None else float(rate)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    numbers = [start, *listed, *([] if rate is None else [rate])]
    if not all(0 <= number < 1 << 40 for number in numbers) or rate == 0:
        return None
    return Times(rate, start, {milliseconds(time): time for time in listed})


def milliseconds(seconds: float) -> int:
    """Return the whole milliseconds of a time, as packets have them."""
    return round(float(seconds) * 1000)


def at_rate(
    frames: Iterable[tuple[float, _Frame]], rate: float, last: float
) -> Iterator[tuple[float, _Frame]]:
    """Yield frames so many times a second, each the one that is nearest in time.

    Args:
        frames: Each frame with its time, in order.
        rate: Frames a second.
        last: Seconds that an only frame is shown; otherwise the last one is, as long as the one before.
    """
    number, start, held = 0, 0.0, None
    for time, frame in frames:
        if held is None:
            start = time
        else:
            last = time - held[0]
            while start + number / rate < (time + held[0]) / 2:
                yield start + number / rate, held[1]
                number += 1
        held = time, frame
    if held is None:
        return
    for further in range(number, max(1, number, math.floor((held[0] + last - start) * rate + 0.5))):
        yield start + further / rate, held[1]
