"""Adds up the gradients of a step's micro-batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helix_train.logits import backward_by_positions
from helix_train.objective import Examples, Losses, add_up
from helix_train.streaming import backward_in_chunks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from helix_train.assembly import Parts
    from helix_train.batches import Batches
    from helix_train.config import TrainerConfig
    from helix_train.ranks import Ranks


class Accumulation:
    """The gradients of a step: of so many micro-batches, on all ranks, each weighted alike.

    Args:
        parts: The model, its loss and its precision.
        batches: Hands out micro-batches.
        ranks: Where they are worked on.
        options: How many make a step, and how each is run.
    """

    def __init__(self, parts: Parts, batches: Batches, ranks: Ranks, options: TrainerConfig) -> None:
        self._parts = parts
        self._batches = batches
        self._ranks = ranks
        self._options = options

    def next_step(self) -> Losses:
        """Add the gradients of the next step to the parameters', and return its losses over all ranks."""
        return self._add_up(self._batches.next() for _ in range(self._options.accumulate))

    def ahead(self, count: int) -> Losses:
        """Do the same for the step that comes after `count` others, and leave the next step what it is."""
        n = self._options.accumulate
        return self._add_up(self._batches.ahead(number) for number in range(count * n, (count + 1) * n))

    def _add_up(self, batches: Iterable[Any]) -> Losses:
        last = self._options.accumulate - 1
        parts = (self._backward(batch, last=number == last) for number, batch in enumerate(batches))
        losses = self._ranks.mean(add_up(parts))
        self._parts.precision.unscale(self._parts.model.parameters())
        return losses

    def _backward(self, batch: Any, *, last: bool) -> Losses:
        options, scale = self._options, self._parts.precision.scale
        examples, weight = Examples.of(batch, self._ranks.device), scale / options.accumulate
        with self._ranks.accumulating(last=last):
            losses = self._backward_of(examples, weight)
        return losses.scaled(1 / scale)

    def _backward_of(self, examples: Examples, weight: float) -> Losses:
        options, objective = self._options, self._parts.objective
        if options.chunk_len:
            return backward_in_chunks(
                objective, examples, chunk_len=options.chunk_len, gradient=options.gradient, weight=weight
            )
        if options.logits_chunk:
            return backward_by_positions(objective, examples, n_positions=options.logits_chunk, weight=weight)
        return objective.backward(examples, weight=weight)
