"""The entries of a hierarchy: values by keys of symbols, read tier by tier, each find with its reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from helix_topo.retrieval import Rung, as_retrieved, retrieve

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from helix_kernel.memory import Report, Retrieved, Stats
    from helix_topo.cycles import Cycles
    from helix_topo.motifs.tier import Motifs
    from helix_topo.retrieval import Found
    from helix_topo.symbol_cores import SymbolCores


class Lent:
    """A tier as one above it sees it, which neither counts it among its parts nor keeps its state.

    Args:
        tier: Whose entries are lent.
    """

    def __init__(self, tier: Motifs) -> None:
        self._tier = tier
        self.d_key, self.d_value, self.capacity = tier.d_key, tier.d_value, tier.capacity
        self.key_dtype = tier.key_dtype

    def write(self, keys: Tensor, values: Tensor, *, time: float) -> Tensor:
        """Write into the tier."""
        return self._tier.write(keys, values, time=time)

    def read(self, queries: Tensor, k: int) -> Retrieved:
        """Read from the tier."""
        return self._tier.read(queries, k)

    def values_of(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tier's values."""
        return self._tier.values_of(ids)

    def consolidate(self) -> Report:
        """Consolidate the tier."""
        return self._tier.consolidate()

    def stats(self) -> Stats:
        """Return the tier's counts."""
        return self._tier.stats()

    def state(self) -> dict[str, Any]:
        """Return nothing: the tier's own state holds it."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Do nothing; see `state`."""


@attrs.frozen
class Entries:
    """What a hierarchy holds by keys of symbols: entries of M0, the arcs of M1 between them, cores of M2.

    Args:
        motifs: The tier that holds keys and values.
        cycles: The tier above it, with `motifs` lent to it; None where there is none.
        cores: The tier above that, which holds the same by itself; None where there is none.
    """

    motifs: Motifs
    cycles: Cycles | None
    cores: SymbolCores | None = None

    def write(self, keys: Tensor, values: Tensor, *, time: float) -> Tensor:
        """Remember values by keys, and count which follows which."""
        tier = self.motifs if self.cycles is None else self.cycles
        ids = tier.write(keys, values, time=time)
        if self.cores is not None:
            self.cores.write(keys, values, time=time)
        return ids

    def find(self, queries: Tensor, k: int, *, budget: int | None = None) -> list[list[Found]]:
        """Return at most `k` finds for each query, of M2, M1, then M0; see `retrieval.retrieve`."""
        above = [] if self.cores is None else [self._rung_of_cores(self.cores)]
        return retrieve(queries, [*above, *self._rungs()], k=k, budget=budget)

    def read(self, queries: Tensor, k: int) -> Retrieved:
        """Find the entries that are most like each query, in the form of one tier's reading.

        What cores hold has ids of its own, and is left out.
        """
        names = [rung.tier for rung in self._rungs()]
        if len(names) == 1:
            return self.motifs.read(queries, k)
        empty = self.motifs.read(queries[:0], k).values.new_zeros(self.motifs.d_value)
        return as_retrieved(retrieve(queries, self._rungs(), k=k), k, tiers=names, empty=empty)

    def _rungs(self) -> list[Rung]:
        below = Rung(
            tier="motifs",
            read=self.motifs.read,
            entries="motifs",
            why=lambda _, score: f"its key ends like the query by a score of {score:.4g}",
        )
        if self.cycles is None:
            return [below]
        return [
            Rung(
                tier="cycles",
                read=self.cycles.read,
                entries="motifs",
                least=1.0,  # below 1 it is not on a cycle, and left to the tier below
                why=_why_of_cycles,
            ),
            below,
        ]

    def _rung_of_cores(self, cores: SymbolCores) -> Rung:
        return Rung(
            tier="cores",
            read=cores.read,
            entries="cores",
            least=cores.cores.alike,
            link=cores.link,
            why=cores.why,
        )


def _why_of_cycles(_entry: int, score: float) -> str:
    if score > 2:
        return "its key is most like the query"
    return f"on a cycle with what is most like the query, reached with probability {score - 1:.3g}"
