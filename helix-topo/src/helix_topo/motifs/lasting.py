"""How lasting each context of the motifs' tables is, and how long it was not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from helix_topo.motifs.tier import Motifs

_TICKS, _FIRST_CLASS = 2048, 6  # of motif_slots.h


@attrs.frozen(kw_only=True, eq=False)
class Lasting:
    """The contexts of a memory, in no order that says anything.

    Args:
        stability: (n,) in units of a new context's.
        age: (n,) since each was last written, in the unit of time in which a new one's stability is 1.
        width: (n,) how many next symbols each has room for: the shorter a context, the more.
    """

    stability: NDArray[np.float64]
    age: NDArray[np.float64]
    width: NDArray[np.int64]


def lasting(motifs: Motifs) -> Lasting:
    """Return how lasting the contexts are that a memory holds in slots.

    Ages are told modulo 2,048 ticks of the tables' clock, as the memory itself knows them.
    """
    tables = dict(motifs.named_buffers(recurse=False))
    view = motifs._tables.view(tables)  # noqa: SLF001 - how they are laid out is the package's own affair
    slots, tick = tables["slots"].numpy(), int(motifs.counters[0]) // view.places_a_tick
    parts, start = [], 0
    for table in view.tables:
        size, n_slots = table.size, table.n_buckets * table.ways
        rows = slots[start : start + n_slots * size].reshape(n_slots, -1) if n_slots else slots[:0, None]
        start += n_slots * size
        if n_slots:
            rows = rows[rows[:, 4 + 2 * table.width] > 0]  # whose first count is not 0
            written = rows[:, 2].astype(np.int64) | rows[:, 3].astype(np.int64) << 8
            parts.append(
                np.stack([written >> 11, (tick - written) % _TICKS, np.full(len(rows), table.width)])
            )
    classes, ticks, width = np.concatenate([np.empty((3, 0), np.int64), *parts], axis=1)
    first = 2.0 ** (_FIRST_CLASS / 2)  # ticks
    return Lasting(stability=2.0 ** (classes / 2) / first, age=ticks / first, width=width)
