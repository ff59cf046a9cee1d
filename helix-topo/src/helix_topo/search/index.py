"""What a memory finds vectors with: all compared, or a graph of neighbours walked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Index(Protocol):
    """Finds rows of a table of keys (N, D) whose entries have ids (N,), -1 where a row is free."""

    def added(self, slots: Tensor, keys: Tensor) -> None:
        """Learn of new keys (n, D) in rows (n,), each once, of which none is taken."""
        ...

    def removed(self, slots: Tensor) -> None:
        """Learn that rows (n,), each once, are free."""
        ...

    def find(self, queries: Tensor, keys: Tensor, ids: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return rows (Q, k) and scores (Q, k) as `helix_topo.search.exact.nearest` does."""
        ...

    def state(self) -> Tensor | None:
        """Return what the table cannot tell, uint8; None for nothing."""
        ...

    def load_state(self, state: Tensor | None) -> None:
        """Become the index that `state` was taken from."""
        ...

    def n_bytes(self) -> int:
        """Return what it takes beside the table."""
        ...
