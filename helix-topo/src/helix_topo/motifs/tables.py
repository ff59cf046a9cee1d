"""The tables of the motifs: how a budget of bytes is parted, and how compiled code sees them."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import torch

from helix_kernel.errors import ArgumentError
from helix_topo.native import address
from helix_topo.stability import Rule, retrievability, strengthened

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from helix_topo.config.motifs import Replace

MOST_ORDERS, MOST_RUN = 16, 16
N_TOTALS, N_DISTINCTS, N_LEVELS, N_RUNS, N_BINS = 8, 4, 12, 4, 33
_DENSE_BUCKETS = 64
_N_OF_ORDER = N_TOTALS * N_DISTINCTS * N_LEVELS * (N_RUNS + 2)
_LEAST = 1 << 14  # bytes of slots, below which a bucket or two would be all
_TICKS, _CLASSES = 2048, 32
_BUCKET_TOTALS = (1, 2, 3, 4, 6, 12, 30, 100)
_REFINED_SPAN = 9.21034  # log-odds of 1 - 1e-4
COUNTERS = ("places", "added", "evicted", "repeated")


@attrs.frozen
class _Shape:
    """Slots of one width: the next symbols that each holds, its bytes, how many share a bucket, its part."""

    width: int
    size: int
    ways: int
    longest: int
    part: float


# Long contexts have few next symbols: theirs are the small slots. A bucket is one cache line or two.
_SHAPES = (
    _Shape(20, 64, 2, 2, 0.06),
    _Shape(9, 32, 4, 4, 0.2),
    _Shape(4, 16, 4, 8, 0.4),
    _Shape(1, 8, 8, 1 << 30, 0.34),
)


class _SlotTable(ctypes.Structure):
    _fields_ = (
        ("bytes", ctypes.c_void_p),
        ("n_buckets", ctypes.c_int64),
        ("ways", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("size", ctypes.c_int64),
    )


class _SlotRules(ctypes.Structure):
    _fields_ = (
        ("tick", ctypes.c_uint32),
        ("dither", ctypes.c_uint32),
        ("replace", ctypes.c_int32),
        ("limit", ctypes.c_int32),
        ("halves", ctypes.c_void_p),
        ("gains", ctypes.c_void_p),
    )


class View(ctypes.Structure):
    """What compiled code knows of a memory: `Motifs` of motif_mix.h."""

    _fields_ = (
        ("tables", _SlotTable * len(_SHAPES)),
        ("n_orders", ctypes.c_int64),
        ("order", ctypes.c_int64 * MOST_ORDERS),
        ("table_of", ctypes.c_int64 * MOST_ORDERS),
        ("vocab_size", ctypes.c_int64),
        ("min_count", ctypes.c_int64),
        ("longest", ctypes.c_int64),
        ("rate_limit", ctypes.c_int64),
        ("places_a_tick", ctypes.c_int64),
        ("rules", _SlotRules),
        ("zero", ctypes.c_void_p),
        ("first", ctypes.c_void_p),
        ("first_total", ctypes.c_void_p),
        ("trust", ctypes.c_void_p),
        ("taught", ctypes.c_void_p),
        ("refined", ctypes.c_void_p),
        ("counters", ctypes.c_void_p),
    )


@attrs.frozen(kw_only=True)
class Tables:
    """How a memory's tables are laid out.

    Args:
        vocab_size: Symbols.
        budget: Bytes that all tables take at most.
        orders: Lengths of contexts, rising.
        replace: By what a context gives way.
        growth: w of the stability's growth.
        longest: Whether only the longest motif counts.
        min_count: How often a context must have come to be a motif.
    """

    vocab_size: int
    budget: int
    orders: tuple[int, ...]
    replace: Replace
    growth: float
    longest: bool
    min_count: int

    def empty(self) -> dict[str, Tensor]:
        """Return the tables of an empty memory, by name."""
        n_first = self.vocab_size if self._is_dense() else 0
        n_slots = sum(n * _SHAPES[i].ways * _SHAPES[i].size for i, n in enumerate(self._buckets()))
        return {
            "zero": torch.zeros(self.vocab_size + 1, dtype=torch.int32),
            "first": torch.zeros(n_first, self.vocab_size, dtype=torch.int16),
            "first_total": torch.zeros(n_first, dtype=torch.int32),
            "trust": torch.from_numpy(self._first_trust()),
            "taught": torch.zeros(_DENSE_BUCKETS + len(self._hashed()) * _N_OF_ORDER, dtype=torch.int32),
            "refined": torch.from_numpy(_identity()).repeat(len(self._hashed()) + 1, N_RUNS, 1),
            "counters": torch.zeros(len(COUNTERS), dtype=torch.int64),
            "slots": torch.zeros(n_slots, dtype=torch.uint8),
        }

    def view(self, tables: Mapping[str, Tensor]) -> View:
        """Return how compiled code sees tables, for as long as they live where they are."""
        at = {name: address(table.numpy()) for name, table in tables.items()}
        view = View(
            n_orders=len(self._hashed()),
            vocab_size=self.vocab_size,
            min_count=self.min_count,
            longest=self.longest,
            rate_limit=1000,
            places_a_tick=max(1, self.budget // (16 * 128 * len(self.orders))),
            rules=self._rules(),
            first=at["first"] if self._is_dense() else None,
            **{name: at[name] for name in ("zero", "first_total", "trust", "taught", "refined", "counters")},
        )
        start = at["slots"]
        for index, (shape, n_buckets) in enumerate(zip(_SHAPES, self._buckets(), strict=True)):
            view.tables[index] = _SlotTable(start, n_buckets, shape.ways, shape.width, shape.size)
            start += n_buckets * shape.ways * shape.size
        for k, order in enumerate(self._hashed()):
            view.order[k], view.table_of[k] = order, _shape_of(order)
        return view

    @property
    def n_buckets(self) -> int:
        """Classes of finds that predictions are told by."""
        return 1 + (len(self._hashed()) + 1) * N_LEVELS

    def _is_dense(self) -> bool:
        """Whether order 1 is a table of all pairs, which must be small beside the budget."""
        return 1 in self.orders and 16 * self.vocab_size**2 <= self.budget

    def _hashed(self) -> tuple[int, ...]:
        return tuple(order for order in self.orders if not (order == 1 and self._is_dense()))

    def _buckets(self) -> list[int]:
        """Return the number of buckets of each shape."""
        used = {_shape_of(order) for order in self._hashed()}
        parts = sum(_SHAPES[index].part for index in used)
        free = self.budget - self._fixed()
        sizes = [shape.ways * shape.size for shape in _SHAPES]
        if free < _LEAST:
            raise ArgumentError(
                f"the budget leaves {free} bytes for contexts beside {self._fixed()} of other tables; "
                f"allowed is at least {_LEAST}: give a larger budget, or fewer orders"
            )
        return [
            int(free * _SHAPES[i].part / parts) // size if i in used else 0 for i, size in enumerate(sizes)
        ]

    def _fixed(self) -> int:
        """Return the bytes of all tables but the slots."""
        n = len(self._hashed())
        dense = 2 * self.vocab_size * (self.vocab_size + 2) if self._is_dense() else 0
        learned = 8 * (_DENSE_BUCKETS + n * _N_OF_ORDER) + 4 * (n + 1) * N_RUNS * N_BINS
        return 4 * (self.vocab_size + 1) + dense + learned + 8 * len(COUNTERS)

    def _first_trust(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return trust before anything is learned: n of n + d + 1, for n occurrences of d symbols."""
        totals, distinct = np.array(_BUCKET_TOTALS)[:, None], np.arange(N_DISTINCTS) + 1
        of_order = np.repeat((totals / (totals + distinct)).ravel(), N_LEVELS * N_RUNS)
        dense = np.full(_DENSE_BUCKETS, 0.9)
        n = len(self._hashed())
        others = np.full(n * N_TOTALS * N_DISTINCTS * N_LEVELS * 2, 0.5)
        return np.concatenate([dense, *[of_order] * n, others]).astype(np.float32)

    def _rules(self) -> _SlotRules:
        halves, gains = _halves(), _gains(self.growth)
        number = ("fsrs", "lru", "lfu").index(self.replace)
        return _SlotRules(0, 0, number, 60, address(halves), address(gains))


def _shape_of(order: int) -> int:
    return next(index for index, shape in enumerate(_SHAPES) if order <= shape.longest)


def _identity() -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the refinement that changes nothing: each bin's own probability, by even steps of log-odds."""
    log_odds = np.linspace(-_REFINED_SPAN, _REFINED_SPAN, N_BINS)
    return (1 / (1 + np.exp(-log_odds))).astype(np.float32)


@cache
def _halves() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return log2 of each age in ticks, in halves, rounded; 0 for none."""
    ages = np.maximum(np.arange(_TICKS), 1)
    return np.round(2 * np.log2(ages)).astype(np.uint8)


@cache
def _gains(growth: float) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Return how many 256ths of a class (half of a doubling) a recall adds, by log2(age / S) in halves + 32.

    It is what `stability.strengthened` makes of a stability of 1.
    """
    ratio = 2.0 ** ((np.arange(2 * _CLASSES) - _CLASSES) / 2)
    fresh = np.ones_like(ratio)
    factor = strengthened(fresh, retrievability(ratio, fresh), Rule(growth=growth))
    return np.round(256 * 2 * np.log2(factor)).astype(np.uint16)
