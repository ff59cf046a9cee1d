"""Hierarchical retrieval: tiers are asked in turn, within a budget, and say what was found where, and why."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs
import torch

from helix_kernel.errors import ArgumentError
from helix_kernel.memory import Retrieved

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from helix_topo.links import Link


@attrs.frozen(kw_only=True, eq=False)
class Found:
    """One entry that was found.

    Args:
        tier: Name of the tier that found it.
        id: The entry's id, among those of the tier's `Rung.entries`.
        score: How well it fits, in the tier's own measure.
        link: Class of the entry's stability, of those of links.py.
        why: What the score says, in words.
        value: (d_value,) what is remembered there.
    """

    tier: str
    id: int
    score: float
    link: Link
    why: str
    value: Tensor


@attrs.frozen(kw_only=True, eq=False)
class Rung:
    """A tier as one that is asked in turn.

    Args:
        tier: Its name.
        read: Takes queries (Q, …) and a number of places, and finds, as `MemoryTier.read`.
        entries: Name of what its ids count: tiers of one name speak of the same entries, and an entry that
            an earlier one found is not found again.
        least: What scores lower is not found.
        link: Gives the class of an entry by its id.
        why: Puts a find into words, by its id and score.
    """

    tier: str
    read: Callable[[Tensor, int], Retrieved]
    entries: str
    least: float = -math.inf
    link: Callable[[int], Link] = lambda _id: "U"
    why: Callable[[int, float], str] = lambda _id, score: f"score {score:.4g}"


def retrieve(
    queries: Tensor, rungs: Sequence[Rung], *, k: int, budget: int | None = None
) -> list[list[Found]]:
    """Find at most `k` entries for each query: by the first rung, then by the next what is still missing.

    Args:
        queries: (Q, …) as the rungs take them.
        rungs: Those who are asked, in their order: for the tiers M2, M1, M0.
        k: Most entries for a query.
        budget: Most places that all rungs together may be asked for, a query; left out: no bound. A rung is
            asked for `k`, or for what is left, and for a query that lacks nothing not at all.

    Returns:
        For each query what was found, rung by rung, and of one rung the best first.

    Raises:
        ArgumentError: `k` or `budget` is below 1.
    """
    if k < 1 or (budget is not None and budget < 1):
        raise ArgumentError(f"k and budget are {k} and {budget}, allowed are numbers >= 1")
    found: list[list[Found]] = [[] for _ in queries]
    seen: list[set[tuple[str, int]]] = [set() for _ in queries]
    left = k * len(rungs) if budget is None else budget
    for rung in rungs:
        lacking = [row for row, finds in enumerate(found) if len(finds) < k]
        places = min(k, left)
        if not lacking or not places:
            break
        left -= places
        read = rung.read(queries[lacking], places)
        for number, row in enumerate(lacking):
            finds = _finds(rung, read, number, seen[row])
            found[row] += finds[: k - len(found[row])]
    return found


def as_retrieved(
    found: Sequence[Sequence[Found]], k: int, *, tiers: Sequence[str], empty: Tensor
) -> Retrieved:
    """Return what `retrieve` found in the form of one tier's reading.

    Scores of different tiers have different measures, so each becomes a number that falls along a row: a
    find of the tier at place i of n is given n - 1 - i, and the share of 1 that ½ + atan(score) / π is.

    Args:
        found: For each query.
        k: Places.
        tiers: The tiers' names in the order in which they were asked.
        empty: (d_value,) whose shape and dtype the values have.
    """
    shape = len(found), k
    ids = torch.full(shape, -1, dtype=torch.int64)
    scores = torch.full(shape, -math.inf)
    values = empty.new_zeros(*shape, *empty.shape)
    for row, finds in enumerate(found):
        for place, find in enumerate(finds[:k]):
            ids[row, place] = find.id
            values[row, place] = find.value
            within = 0.5 + math.atan(find.score) / math.pi
            scores[row, place] = len(tiers) - 1 - tiers.index(find.tier) + within
    return Retrieved(values=values, scores=scores, ids=ids)


def _finds(rung: Rung, read: Retrieved, row: int, seen: set[tuple[str, int]]) -> list[Found]:
    finds = []
    for place, entry in enumerate(read.ids[row].tolist()):
        score = float(read.scores[row, place])
        if entry < 0 or score < rung.least or (rung.entries, entry) in seen:
            continue
        seen.add((rung.entries, entry))
        finds.append(
            Found(
                tier=rung.tier,
                id=entry,
                score=score,
                link=rung.link(entry),
                why=rung.why(entry, score),
                value=read.values[row, place].clone(),
            )
        )
    return finds
