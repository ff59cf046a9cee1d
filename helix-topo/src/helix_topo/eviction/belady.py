"""Belady's bound: of a trace that is known in advance, the entry needed latest gives way."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from helix_kernel.errors import ArgumentError, InputError
from helix_topo import native
from helix_topo.eviction.compiled import check_capacity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray


class Belady:
    """The most hits that a memory of a size can have that lets in all it is asked for.

    L. A. Belady, "A study of replacement algorithms for a virtual-storage computer", IBM Systems Journal
    5(2), 1966. It must see the whole trace: each call of `requested` is one of its own, on an empty memory.

    Args:
        capacity: Slots.

    Raises:
        ArgumentError: The capacity is out of range.
    """

    offline = True

    def __init__(self, capacity: int) -> None:
        check_capacity(capacity)
        self.capacity = capacity

    def requested(
        self,
        keys: ArrayLike,
        *,
        before: ArrayLike | None = None,  # noqa: ARG002 - the future alone counts
        saved_bits: ArrayLike | None = None,  # noqa: ARG002 - the same
    ) -> NDArray[np.bool_]:
        """Return which requests for keys (n,) are hits (n,).

        Raises:
            MemoryError: There is no memory for it.
        """
        asked = np.ascontiguousarray(keys, dtype=np.uint64)
        n = len(asked)
        order = np.argsort(asked, kind="stable")
        same = asked[order][1:] == asked[order][:-1]
        again, came = order[1:][same], order[:-1][same]
        previous = np.full(n, -1)
        following = np.arange(n, 2 * n)  # never again: after all others, the later place the later
        previous[again], following[came] = came, again
        held, hits = np.zeros(n, dtype=np.uint8), np.zeros(n, dtype=np.bool_)
        arrays = [native.address(each) for each in (following, previous)]
        if not _run()(*arrays, n, self.capacity, native.address(held), native.address(hits)):
            raise MemoryError
        return hits

    def added(self, slots: ArrayLike, time: float) -> None:  # noqa: ARG002 - as all policies
        """Refuse: nobody tells what will be needed.

        Raises:
            ArgumentError: Always.
        """
        _refuse()

    def recalled(self, slots: ArrayLike, time: float, *, correct: bool = True) -> None:  # noqa: ARG002 - the same
        """Refuse, as `added`.

        Raises:
            ArgumentError: Always.
        """
        _refuse()

    def forgotten(self, slots: ArrayLike) -> None:  # noqa: ARG002 - the same
        """Refuse, as `added`.

        Raises:
            ArgumentError: Always.
        """
        _refuse()

    def victim(self, time: float) -> int:  # noqa: ARG002 - the same
        """Refuse, as `added`.

        Raises:
            ArgumentError: Always.
        """
        _refuse()

    def state(self) -> dict[str, Any]:
        """Return the capacity: nothing else is remembered."""
        return {"capacity": self.capacity}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Check that `state` is of this capacity.

        Raises:
            InputError: It is not.
        """
        if state.get("capacity") != self.capacity:
            raise InputError(
                f"belady: the state is of capacity {state.get('capacity')}, allowed is {self.capacity}"
            )


def _refuse() -> NoReturn:
    raise ArgumentError(
        "belady must know in advance what will be needed, which a memory in use cannot tell: name another "
        "policy, such as fsrs; belady is for traces, by requested()"
    )


def _run() -> Any:
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    arguments = (pointer, pointer, number, number, pointer, pointer)
    return native.function("belady_requested", result=number, arguments=arguments)
