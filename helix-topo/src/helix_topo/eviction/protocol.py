"""What an eviction policy is: it hears what happens to the entries of a memory, and says which gives way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import ArrayLike, NDArray


class Eviction(Protocol):
    """What a component of kind ``eviction`` is, built with the `capacity` of the memory that it serves.

    A memory tells it of slots, 0 to ``capacity - 1``, in the order in which things happen. Or `requested`
    alone is called, to learn how many of a trace's keys a memory would hold. A policy serves one of the two.

    Attributes:
        capacity: Slots.
        offline: Whether it must know what will be requested, so that it has `requested` only and forgets the
            end of each call's keys.
    """

    capacity: int
    offline: bool

    def added(self, slots: ArrayLike, time: float) -> None:
        """Take in that entries (n,) began in free slots, at a time that never runs backwards."""
        ...

    def recalled(self, slots: ArrayLike, time: float, *, correct: bool = True) -> None:
        """Take in that entries (n,) were recalled, rightly or not; free slots are passed over."""
        ...

    def forgotten(self, slots: ArrayLike) -> None:
        """Take in that slots (n,) are free."""
        ...

    def victim(self, time: float) -> int:
        """Return the slot whose entry is to give way at a time, -1 where there is none; nothing changes."""
        ...

    def requested(
        self, keys: ArrayLike, *, before: ArrayLike | None = None, saved_bits: ArrayLike | None = None
    ) -> NDArray[np.bool_]:
        """Run requests, after each of which its key is in the memory.

        Args:
            keys: (n,) uint64, as many calls as wanted.
            before: What came before each, as numbers that stand for it (n,).
            saved_bits: How many bits each saves where it is a hit (n,).

        Returns:
            Whether each was in the memory (n,).
        """
        ...

    def state(self) -> dict[str, Any]:
        """Return all that the policy must remember, as copies: tensors by name."""
        ...

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become the policy that `state` was taken from, to the bit.

        Raises:
            InputError: It is that of a policy of another size.
        """
        ...
