"""Chooses the size of a batch, and the device, from what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from helix_multimodal.placement.measuring import Measurement


def choose(
    measurements: Sequence[Measurement], memory: Mapping[str, int], *, knee: float = 0.95, spare: float = 0.1
) -> Measurement:
    """Return the smallest batch, on the fastest device, that comes near the most rows a second.

    Beyond some size a larger batch is hardly faster, but takes more memory and gives fewer steps.

    Args:
        measurements: Of any sizes and devices.
        memory: Bytes that each device has for this; one that is not named is taken to have enough.
        knee: Share of the most rows a second that is near enough, above 0 and up to 1.
        spare: Share of the memory that is left free, 0 to below 1.

    Raises:
        ArgumentError: A share is out of range, nothing was measured, or nothing fits.
    """
    if not 0 < knee <= 1:
        raise ArgumentError(f"knee is {knee!r}, allowed is > 0 and <= 1")
    if not 0 <= spare < 1:
        raise ArgumentError(f"spare is {spare!r}, allowed is >= 0 and < 1")
    if not measurements:
        raise ArgumentError("measurements are empty; measure one size at least")
    fitting = [one for one in measurements if _fits(one, memory, spare)]
    if not fitting:
        least = min(measurements, key=lambda one: one.peak_bytes)
        raise ArgumentError(
            f"memory: no batch fits; the least, of {least.batch_size} rows on {least.device}, takes "
            f"{least.peak_bytes:,} bytes of {memory[least.device]:,}"
        )
    most = max(one.rows_per_second for one in fitting)
    near = [one for one in fitting if one.rows_per_second >= knee * most]
    return min(near, key=lambda one: (one.batch_size, one.seconds))


def _fits(one: Measurement, memory: Mapping[str, int], spare: float) -> bool:
    return one.device not in memory or one.peak_bytes <= (1 - spare) * memory[one.device]
