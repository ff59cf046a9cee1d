"""W-TinyLFU: what comes in must have come more often lately than what it would replace."""

from __future__ import annotations

from helix_kernel.errors import ArgumentError
from helix_topo.eviction.compiled import TINY_LFU, CompiledPolicy, Layout, check_sketch, sketch_width


class TinyLfu(CompiledPolicy):
    """A window before a segmented main part, and a sketch that says how often keys came lately.

    As of Einziger, Friedman and Manes, "TinyLFU: A Highly Efficient Cache Admission Policy", ACM Transactions
    on Storage 13(4), 2017, arXiv:1512.00727. New entries come to the window. What falls out of it stays only
    if its estimated frequency is above that of the main part's oldest entry on probation. A recall takes an
    entry from probation to the protected segment. The estimate is a count-min sketch of counters up to 15,
    all halved after `sample` · capacity keys. Entries of which no key is told count as keys of their own.

    Args:
        capacity: Slots.
        window: Share of the slots that is the window; at least one slot is.
        protected: Share of the others that is protected.
        sample: Keys, in units of the capacity, after which counts are halved.
        counters: In each of the sketch's four rows, a slot, one byte each.

    Raises:
        ArgumentError: A share is out of range.
    """

    def __init__(
        self,
        capacity: int,
        *,
        window: float = 0.01,
        protected: float = 0.8,
        sample: int = 10,
        counters: int = 4,
    ) -> None:
        for name, share in {"window": window, "protected": protected}.items():
            if not 0 <= share <= 1:
                raise ArgumentError(f"{name} is {share}, allowed is a share from 0 to 1")
        check_sketch(sample, counters)
        slots = max(1, round(window * capacity))
        super().__init__(
            capacity,
            Layout(
                kind=TINY_LFU,
                n_lists=3,
                width=sketch_width(capacity, counters),
                sample=sample * capacity,
                window=slots,
                protects=max(0, round(protected * (capacity - slots))),
            ),
        )
