"""Options of the motifs."""

from __future__ import annotations

from typing import Literal

import attrs

from helix_kernel import option

Blend = Literal["cascade", "longest"]
Replace = Literal["fsrs", "lru", "lfu"]
ORDERS = (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32)


@attrs.frozen(kw_only=True)
class MotifsConfig:
    """Tier M0: what followed each run of symbols, in a bounded table of hashed contexts."""

    vocab_size: int = option(256, help="Symbols: ids are below it", ge=2, le=65_536)
    budget: int = option(64 << 20, help="Bytes that the memory takes at most", ge=1 << 20)
    orders: tuple[int, ...] = option(ORDERS, help="Lengths of contexts, rising, at most 16 of them", ge=1)
    blend: Blend = option(
        "cascade", help="Whether all known contexts are blended, or only the longest counts"
    )
    min_count: int = option(2, help="How often a context must have come to be a motif", ge=1)
    replace: Replace = option("fsrs", help="By what a context of a full bucket gives way")
    growth: float = option(8.0, help="w of the stability's growth at a correct recall", ge=0)
    d_key: int = option(32, help="Symbols of a key, for what is written by keys", ge=1)
    d_value: int = option(1, help="Length of its values", ge=1)
    capacity: int = option(4096, help="Most keys; what they take is part of the budget", ge=1)
