"""The dataset `mixture`: rows of several datasets, by weights."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from helix_data.batches import check_seed, first_of_batch
from helix_data.config import check_at_least, check_mixture
from helix_data.shards.evaluation import evaluation_spans
from helix_data.slots import Slots, slots_of
from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray


class MixedBatch(NamedTuple):
    """Rows of several datasets.

    Attributes:
        inputs: (B, L), as the parts have them.
        targets: (B, L).
        mask: (B, L) bool: which targets count; None where no part has such a mask.
        input_mask: (B, L) bool: which inputs are no padding; None where no part has such a mask.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    mask: torch.Tensor | None = None
    input_mask: torch.Tensor | None = None


class Mixture:
    """Rows of several datasets, each as often as its weight says, in an order that (seed, row) alone decide.

    The rows of a part are those that it would give alone, in the same order; see `helix_data.slots.Slots`
    for which rows are its. A part is asked for whole batches of its own size, unless it has ``rows``.

    Args:
        parts: The datasets, by names of their own. Their ``vocab_size``, ``seq_len`` and the kinds of
            their targets are the same.
        weights: By the same names, in any unit: only their proportions count.
        batch_size: Rows in a batch, on each rank.

    Raises:
        ArgumentError: The names differ, a weight is wrong, or the parts do not fit together.
    """

    def __init__(
        self, *, parts: Mapping[str, Any], weights: Mapping[str, float], batch_size: int = 16
    ) -> None:
        check_mixture(parts, weights)
        check_at_least("batch_size", batch_size, 1)
        slots = slots_of({name: weights[name] for name in sorted(weights)})
        self.batch_size = batch_size
        self.vocab_size: int = _agreed(parts, "vocab_size")
        self.seq_len: int = _agreed(parts, "seq_len")
        # By their names, so that the order in a config changes nothing.
        self._parts = {name: parts[name] for name in slots}
        self._weights = {name: float(weights[name]) for name in slots}
        self._slots = Slots(list(slots.values()))

    @property
    def draws(self) -> bool:
        """Whether a part may draw from the process's generators: each says so itself, or may."""
        return any(getattr(part, "draws", True) for part in self._parts.values())

    @property
    def tokens_per_byte(self) -> float | None:
        """Tokens of a byte of text where that is the same for all parts, and otherwise None."""
        found = {getattr(part, "tokens_per_byte", 1.0) for part in self._parts.values()}
        return found.pop() if len(found) == 1 else None

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of the parts' fingerprints, names and weights."""
        known = [(name, self._weights[name], part.fingerprint) for name, part in self._parts.items()]
        return hashlib.sha256(repr(known).encode()).hexdigest()

    def describe(self) -> str:
        """Return one line for people: each part with its weight."""
        parts = (f"{self._weights[name]:g} of {name} ({p.describe()})" for name, p in self._parts.items())
        return f"mixture of {'; '.join(parts)}"

    def batch(self, *, seed: int, step: int, rank: int = 0, world_size: int = 1) -> MixedBatch:
        """Return a rank's share of the training batch of a step.

        Args:
            seed: Decides the order of the parts, and of the rows in each, 0 to 2**64 - 1.
            step: Number of the batch from 0. With gradient accumulation, count the micro-batches.
            rank: Which of the ranks, 0 to `world_size` - 1.
            world_size: Ranks that share a global batch of ``world_size · batch_size`` rows.

        Returns:
            New tensors on the CPU, (batch_size, seq_len) each.

        Raises:
            ArgumentError: An argument is out of range.
            DataError: A part cannot be read.
        """
        first = first_of_batch(step=step, rank=rank, world_size=world_size, batch_size=self.batch_size)
        return self.rows(first, self.batch_size, seed=seed)

    def rows(self, first: int, count: int, *, seed: int) -> MixedBatch:
        """Return rows ``first`` to ``first + count`` of the endless sequence, at least one."""
        check_seed(seed)
        chosen = self._slots.parts(first, count, seed=seed)
        before = self._slots.before(first, seed=seed)
        found, places = [], []
        for number, part in enumerate(self._parts.values()):
            here = np.flatnonzero(chosen == number)
            if len(here):
                found.append(_rows_of(part, before[number], len(here), seed=seed))
                places.append(here)
        order = torch.from_numpy(np.argsort(np.concatenate(places)))
        fields = {name: _joined(found, name)[order] for name, has in self._fields.items() if has}
        return MixedBatch(**fields)

    def part_of_rows(self, first: int, count: int, *, seed: int) -> list[str]:
        """Return the name of the part that each of the rows comes from."""
        names = list(self._parts)
        return [names[number] for number in self._slots.parts(first, count, seed=seed).tolist()]

    def evaluation_batches(self) -> Iterator[Any]:
        """Yield what each part holds out, one part after another, whole: weights are for training."""
        for part in self._parts.values():
            if hasattr(part, "evaluation_batches"):
                yield from part.evaluation_batches()
            else:
                yield from _batches_of_text(part.held_out(), self.seq_len, self.batch_size)

    @cached_property
    def _fields(self) -> dict[str, bool]:
        """Whether a batch has each field: every batch alike, whichever parts it happens to hold."""
        first = {name: _rows_of(part, 0, 1, seed=0) for name, part in self._parts.items()}
        shapes = {name: tuple(batch.targets.shape[1:]) for name, batch in first.items()}
        if len(set(shapes.values())) > 1:
            said = ", ".join(f"{name} has {shape}" for name, shape in shapes.items())
            raise ArgumentError(f"parts: targets of a row must have one shape to stand in one batch: {said}")
        return {
            name: any(getattr(batch, name, None) is not None for batch in first.values())
            for name in MixedBatch._fields
        }


def _agreed(parts: Mapping[str, Any], name: str) -> Any:
    """Return what all parts have under a name."""
    values = {part: getattr(dataset, name) for part, dataset in parts.items()}
    if len(set(values.values())) > 1:
        said = ", ".join(f"{part} has {value}" for part, value in values.items())
        raise ArgumentError(f"parts: {name} must be the same for all to stand in one batch: {said}")
    return next(iter(values.values()))


def _rows_of(part: Any, first: int, count: int, *, seed: int) -> Any:
    """Return rows of a dataset by their numbers, in whole batches where it knows no rows."""
    if hasattr(part, "rows"):
        return part.rows(first, count, seed=seed)
    steps = range(first // part.batch_size, (first + count - 1) // part.batch_size + 1)
    batches = [part.batch(seed=seed, step=step) for step in steps]
    skipped = first - steps[0] * part.batch_size
    fields = {
        name: torch.cat([getattr(batch, name) for batch in batches])[skipped : skipped + count]
        for name in MixedBatch._fields
        if getattr(batches[0], name, None) is not None
    }
    return MixedBatch(**fields)


def _joined(batches: list[Any], name: str) -> torch.Tensor:
    """Return a field of batches, one after another; a mask that one has not is True throughout."""
    like = "inputs" if name == "input_mask" else "targets"
    found = [
        torch.ones_like(getattr(batch, like), dtype=torch.bool)
        if getattr(batch, name, None) is None
        else getattr(batch, name)
        for batch in batches
    ]
    return torch.cat(found)


def _batches_of_text(text: NDArray[Any], seq_len: int, batch_size: int) -> Iterator[MixedBatch]:
    """Yield windows of held-out tokens, each target of which counts once; see `evaluation_spans`."""
    whole = [(0, len(text))] if len(text) > 1 else []
    columns = np.arange(seq_len)
    for (starts, lengths), scored_from in evaluation_spans(whole, seq_len=seq_len, batch_size=batch_size):
        places = np.minimum(starts[:, None] + columns, len(text) - 2)
        inputs, targets = (torch.from_numpy(text[places + shift].astype(np.int64)) for shift in (0, 1))
        scored = (columns >= scored_from[:, None]) & (columns < lengths[:, None])
        yield MixedBatch(inputs, targets, torch.from_numpy(scored))
