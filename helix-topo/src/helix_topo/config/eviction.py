"""Options of the policies that decide which entry gives way."""

from __future__ import annotations

from typing import Literal

import attrs

from helix_kernel import option

_CAPACITY = "Slots of the memory that it serves"


@attrs.frozen(kw_only=True)
class PolicyConfig:
    """One entry gives way to another."""

    capacity: int = option(help=_CAPACITY, ge=1)


@attrs.frozen(kw_only=True)
class FsrsConfig:
    """The entry least likely to be recalled gives way."""

    capacity: int = option(help=_CAPACITY, ge=1)
    initial: float = option(
        0.1, help="Stability of a new entry, in units of the capacity by the clock of events", gt=0
    )
    growth: float = option(8.0, help="w, how much a correct recall adds to a stability", ge=0)
    lapse: float = option(0.4, help="By what a wrong recall multiplies a stability", gt=0, le=1)
    w_evidence: float = option(0.0, help="How much the bits that an entry saved add to growth", ge=0)
    w_context: float = option(0.0, help="How much the variety of what came before adds", ge=0)
    w_phase: float = option(0.0, help="How much the regularity of recalls adds", ge=0)
    w_frequency: float = option(
        2.0, help="How much each time that a key came before adds to a new entry's stability", ge=0
    )
    sample: int = option(
        100,
        help="Keys, in units of the capacity, after which the sketch's counts are halved",
        ge=1,
        le=65_536,
    )
    counters: int = option(16, help="Bytes a slot in each of the sketch's four rows", ge=1, le=65_536)
    clock: Literal["events", "time"] = option(
        "events", help="Whether time counts what was added or recalled, or is what the memory says"
    )


@attrs.frozen(kw_only=True)
class TinyLfuConfig:
    """W-TinyLFU: what comes in must have come more often lately than what it would replace."""

    capacity: int = option(help=_CAPACITY, ge=1)
    window: float = option(0.01, help="Share of the slots that is the window", ge=0, le=1)
    protected: float = option(0.8, help="Share of the other slots that is protected", ge=0, le=1)
    sample: int = option(
        10, help="Keys, in units of the capacity, after which counts are halved", ge=1, le=65_536
    )
    counters: int = option(4, help="Bytes a slot in each of the sketch's four rows", ge=1, le=65_536)
