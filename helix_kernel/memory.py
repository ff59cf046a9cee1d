"""What a memory tier is: keys with values that are written, found again by likeness, and consolidated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


@attrs.frozen(kw_only=True, eq=False)
class Retrieved:
    """What Q queries found, k places for each, the best first.

    Places for which nothing was found come last, with id -1, score -inf and values of 0.

    Args:
        values: (Q, k, d_value), the dtype of what was written.
        scores: (Q, k) floating, from high to low. How they are measured is the tier's own.
        ids: (Q, k) int64, as `MemoryTier.write` gave them; in a row no entry comes twice.
    """

    values: Tensor
    scores: Tensor
    ids: Tensor


@attrs.frozen(kw_only=True)
class Report:
    """What a consolidation did. Every other entry is found as before.

    Args:
        removed: Ids of entries that are no more.
        merged: Ids of entries that are no more, and of those that now stand for them.
    """

    removed: tuple[int, ...] = ()
    merged: Mapping[int, int] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Stats:
    """What a memory holds and has done; all of it goes into its state.

    Each key that was written is an entry, was merged or was evicted: ``entries + merged + evicted`` is
    ``written``.

    Args:
        entries: Entries that can be found.
        written: Keys that were written.
        queries: Queries that were read.
        merged: Entries that became part of another one, when written or consolidated.
        evicted: Entries that gave way to others, were never let in, or were removed by a consolidation.
        n_bytes: What the entries take, in bytes.
    """

    entries: int
    written: int
    queries: int
    merged: int = 0
    evicted: int = 0
    n_bytes: int = 0


class MemoryTier(Protocol):
    """What a component of kind ``memory_tier`` is.

    Keys and values are float32, unless the tier has attributes `key_dtype` or `value_dtype` that name another
    dtype of torch. Where `key_dtype` is uint8 a key is a row of symbols: the last `d_key` of them before what
    is remembered, the oldest first; it is then most like a key with which it shares the longest end.

    Attributes:
        d_key: Length of a key.
        d_value: Length of a value.
        capacity: Most entries that it holds; None where nothing but memory bounds it.
    """

    d_key: int
    d_value: int
    capacity: int | None

    def write(self, keys: Tensor, values: Tensor, *, time: float) -> Tensor:
        """Remember values by keys; the memory keeps copies.

        Args:
            keys: (N, d_key). Of unit length where they are floating, unless the tier says otherwise.
            values: (N, d_value).
            time: When, in any unit that the caller keeps to; never less than at an earlier write.

        Returns:
            (N,) int64: the id of each one's entry; -1 for what was not let in. What a tier merges shares one.

        Raises:
            ArgumentError: A shape does not fit, or `time` runs backwards.
        """
        ...

    def read(self, queries: Tensor, k: int) -> Retrieved:
        """Find the entries that are most like each query.

        A key that is in the memory finds its own entry first. Of entries with equal scores the one written
        later comes first.

        Args:
            queries: (Q, d_key); each is answered as if it came alone.
            k: Places for each, at least 1; there may be fewer entries.

        Raises:
            ArgumentError: A shape does not fit, or `k` is below 1.
        """
        ...

    def consolidate(self) -> Report:
        """Put in order what was written, and say what became of entries."""
        ...

    def state(self) -> dict[str, Any]:
        """Return all that the memory must remember: a nest of dicts, tensors, numbers and strings.

        It is a copy: what the memory does later does not change it.
        """
        ...

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become the memory that `state` was taken from, to the bit, and forget what was here.

        Raises:
            InputError: The state is that of a memory with other options.
        """
        ...

    def stats(self) -> Stats:
        """Return what the memory holds and has done."""
        ...


class LanguageMemory(MemoryTier, Protocol):
    """A tier that a language model takes as its memory: a `torch.nn.Module` with a say in what comes next.

    What it remembers lies in its buffers, so that a model's checkpoint holds it. In training it reads, then
    remembers what it was given; in evaluation it only reads. The language model builds it with `d_model`, the
    width D of its features, and `vocab_size`, the number V of its ids. Its suite is
    `helix_kernel.testing.language_memories.LanguageMemorySuite`.
    """

    def init_state(self, batch_size: int) -> Any:
        """Return what the memory must know of B rows of which nothing was read: a pytree, batch first."""
        ...

    def mix(self, logits: Tensor, ids: Tensor, features: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Mix what is remembered into what a model expects.

        Each row is answered from what was remembered before the call, as if it came alone, and the place t of
        a row from its state and the ids up to t. So chunks that go on from each other's states give what the
        whole gives, while nothing is remembered in between.

        Args:
            logits: (B, L, V), the model's own for what follows each place.
            ids: (B, L) int64.
            features: (B, L, D), what the model's logits were made of.
            state: Of these rows, before the ids.

        Returns:
            Log-probabilities (B, L, V), differentiable in the logits; and the state after the ids.
        """
        ...
