"""What the policies in compiled loops have in common: their tables, which are buffers, and the calls."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import torch

from helix_kernel.errors import ArgumentError, InputError
from helix_topo import native
from helix_topo.host import HostModule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

LRU, LFU, TINY_LFU, FSRS = range(4)
ROWS = 4
"""Of the sketch."""

_LISTS = ("older", "newer", "list", "oldest", "newest", "length", "key", "place")
_KNOWN = ("count", "stability", "recalled_at", "saved", "n_saved", "before", "phase_sum", "n_gaps")
_TABLES = (*_LISTS, *_KNOWN, "sketch", "counters")
_NUMBERS = ("capacity", "n_lists", "kind", "by_events", "width", "sample", "window", "protects")
_WEIGHTS = ("initial", "growth", "lapse", "w_evidence", "w_context", "w_phase", "w_frequency")


@attrs.frozen(kw_only=True)
class Layout:
    """What differs from policy to policy.

    Args:
        kind: Which rule the compiled code follows.
        n_lists: Lists through the slots: classes of what is compared.
        by_events: Whether times are counts of what happened, rather than those that are told.
        width: Counters in a row of the sketch, a power of two.
        sample: Keys after which these are halved.
        window: Entries of the window.
        protects: Most entries of the protected segment.
    """

    kind: int
    n_lists: int
    by_events: bool = True
    width: int = 1
    sample: int = 1
    window: int = 0
    protects: int = 0


class CompiledPolicy(HostModule):
    """A policy whose state is tables that compiled code reads and writes.

    They are buffers, so that a model that holds the memory holds them in its checkpoint.

    Args:
        capacity: Slots.
        layout: What this policy needs.
        weights: Numbers of the rule of stability, by name.

    Raises:
        ArgumentError: The capacity is out of range.
    """

    offline = False
    clock: Tensor

    def __init__(self, capacity: int, layout: Layout, *, weights: Mapping[str, float] | None = None) -> None:
        super().__init__()
        check_capacity(capacity)
        self.capacity = capacity
        self._layout, self._weights = layout, dict(weights or {})
        for name, table in _tables(capacity, layout).items():
            self.register_buffer(name, table)
        self.register_buffer("clock", torch.tensor(-math.inf, dtype=torch.float64))
        self._view: ctypes.Structure | None = None

    def added(self, slots: ArrayLike, time: float) -> None:
        """Take in that entries (n,) began in free slots.

        Raises:
            ArgumentError: A slot is out of range, or time runs backwards.
        """
        places = self._checked(slots, time)
        _call("added")(self._policy(), native.address(places), len(places), time)

    def recalled(self, slots: ArrayLike, time: float, *, correct: bool = True) -> None:
        """Take in that entries (n,) were recalled, rightly or not; free slots are passed over.

        Raises:
            ArgumentError: A slot is out of range, or time runs backwards.
        """
        places = self._checked(slots, time)
        _call("recalled")(self._policy(), native.address(places), len(places), time, int(correct))

    def forgotten(self, slots: ArrayLike) -> None:
        """Take in that slots (n,) are free.

        Raises:
            ArgumentError: A slot is out of range.
        """
        places = self._checked(slots, float(self.clock))
        _call("forgotten")(self._policy(), native.address(places), len(places))

    def victim(self, time: float) -> int:
        """Return the slot whose entry is to give way, -1 where there is none."""
        victim = native.function(
            "eviction_victim", result=ctypes.c_int64, arguments=(ctypes.c_void_p, ctypes.c_double)
        )
        return int(victim(self._policy(), time))

    def requested(
        self, keys: ArrayLike, *, before: ArrayLike | None = None, saved_bits: ArrayLike | None = None
    ) -> NDArray[np.bool_]:
        """Run requests for keys (n,) and return which of them were in the memory (n,).

        Raises:
            ArgumentError: What comes with the keys is not as long as they are.
        """
        asked = np.ascontiguousarray(keys, dtype=np.uint64)
        came = None if before is None else np.ascontiguousarray(before, dtype=np.uint64)
        bits = None if saved_bits is None else np.ascontiguousarray(saved_bits, dtype=np.float64)
        for name, given in (("before", came), ("saved_bits", bits)):
            if given is not None and given.shape != asked.shape:
                raise ArgumentError(f"{name} has shape {given.shape}, allowed is that of keys, {asked.shape}")
        hits = np.zeros(len(asked), dtype=np.bool_)
        told = [None if each is None else native.address(each) for each in (came, bits)]
        _call("requested")(self._policy(), native.address(asked), len(asked), *told, native.address(hits))
        return hits

    def state(self) -> dict[str, Any]:
        """Return all that the policy must remember, as copies."""
        return {name: table.clone() for name, table in self.named_buffers()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become the policy that `state` was taken from.

        Raises:
            InputError: It is that of a policy of another size.
        """
        for name, table in self.named_buffers():
            if name not in state or state[name].shape != table.shape:
                given = tuple(state[name].shape) if name in state else None
                raise InputError(
                    f"eviction: {name} of the state has shape {given}, allowed is {tuple(table.shape)}: "
                    "make the policy with the kind and capacity that it was saved with"
                )
        self.load_state_dict(dict(state))

    def __getstate__(self) -> dict[str, Any]:
        # A copy's tables lie elsewhere.
        return {**self.__dict__, "_view": None}

    def _known(self) -> dict[str, Tensor]:
        """Return the tables by slot that another module holds."""
        return {}

    def _policy(self) -> ctypes.c_void_p:
        if self._view is None:
            tables = {**dict(self.named_buffers(recurse=False)), **self._known()}
            pointers = {name: tables[name].data_ptr() if name in tables else None for name in _TABLES}
            numbers = {"capacity": self.capacity, "n_places": len(tables["place"])}
            numbers |= attrs.asdict(self._layout)
            weights = {name: self._weights.get(name, 0.0) for name in _WEIGHTS}
            self._view = _View(**pointers, **numbers, **weights)
        return ctypes.cast(ctypes.pointer(self._view), ctypes.c_void_p)

    def _checked(self, slots: ArrayLike, time: float) -> NDArray[np.int64]:
        places = np.ascontiguousarray(slots, dtype=np.int64).reshape(-1)
        wrong = places[(places < 0) | (places >= self.capacity)]
        if len(wrong):
            raise ArgumentError(f"eviction: slot {wrong[0]} is given, allowed are 0 to {self.capacity - 1}")
        if not float(self.clock) <= time < math.inf and len(places):
            raise ArgumentError(f"eviction: time is {time}, allowed is a finite one >= {float(self.clock)}")
        if len(places):
            self.clock.fill_(time)
        return places


def check_capacity(capacity: int) -> None:
    """Check a number of slots.

    Raises:
        ArgumentError: It is out of range.
    """
    if not 1 <= capacity < 1 << 30:
        raise ArgumentError(f"eviction: capacity is {capacity}, allowed is >= 1 and < 2^30")


def check_sketch(sample: int, counters: int) -> None:
    """Check the options of a sketch.

    Raises:
        ArgumentError: One is out of range.
    """
    for name, number in {"sample": sample, "counters": counters}.items():
        if not 1 <= number <= 1 << 16:
            raise ArgumentError(f"{name} is {number}, allowed is 1 to 65,536")


def sketch_width(capacity: int, counters: int) -> int:
    """Return how many counters a row has: a power of two, at least so many a slot."""
    return 1 << (max(1, capacity) * counters - 1).bit_length()


class _View(ctypes.Structure):
    """`Policy` of eviction.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in _LISTS),
        ("n_places", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in (*_KNOWN, "sketch", "counters")),
        *((name, ctypes.c_int64) for name in _NUMBERS),
        *((name, ctypes.c_double) for name in _WEIGHTS),
    )


def _tables(capacity: int, layout: Layout) -> dict[str, Tensor]:
    nowhere = {"older": capacity, "newer": capacity, "list": capacity}
    nowhere |= {"oldest": layout.n_lists, "newest": layout.n_lists}
    return {
        **{name: torch.full((size,), -1, dtype=torch.int32) for name, size in nowhere.items()},
        "length": torch.zeros(layout.n_lists, dtype=torch.int32),
        "key": torch.zeros(capacity, dtype=torch.int64),
        # A power of two, of which at most half are taken.
        "place": torch.zeros(2 << (capacity - 1).bit_length(), dtype=torch.int32),
        "count": torch.zeros(capacity, dtype=torch.int64),
        "sketch": torch.zeros(ROWS, layout.width, dtype=torch.uint8),
        "counters": torch.zeros(4, dtype=torch.int64),
    }


def _call(name: str) -> Callable[..., Any]:
    pointer, number, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
    more = {
        "added": (real,),
        "recalled": (real, number),
        "forgotten": (),
        "requested": (pointer, pointer, pointer),
    }
    return native.function(f"eviction_{name}", arguments=(pointer, pointer, number, *more[name]))
