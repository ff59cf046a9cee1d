"""What a resumed run and one that never stopped differ in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import torch
from resume_task import ACCUMULATE, Job

if TYPE_CHECKING:
    from collections.abc import Sequence

KEPT = ("learning rate", "weights", "optimizer", "EMA")
"""What the last checkpoints are compared by."""


@attrs.frozen(kw_only=True)
class Comparison:
    """A resumed run beside one that never stopped.

    Args:
        batches: How many micro-batches both were trained on after the checkpoint.
        other_batches: How many of those hold other bytes, or are missing.
        first: What differs first, in the order of training; empty where nothing does. Where the run could
            not be resumed, the reason that it gave.
        differences: Largest difference of losses and of `KEPT`, relative to the largest value of the same
            tensor; 0 where all is equal to the bit.
    """

    batches: int = 0
    other_batches: int = 0
    first: str
    differences: dict[str, float] = attrs.field(factory=dict)

    @property
    def is_exact(self) -> bool:
        """Whether everything is equal to the bit."""
        return not self.first


def compare(
    whole: Job, resumed: Job, *, checkpoint_at: int, losses: tuple[list[str], list[str]]
) -> Comparison:
    """Compare what two runs were trained on after a checkpoint's step, and their last checkpoints.

    Args:
        whole: The run that never stopped.
        resumed: The other, resumed.
        checkpoint_at: Step of the checkpoint.
        losses: Losses of both after that step, in hexadecimal digits.
    """
    expected = journal(whole, "batch")[checkpoint_at * ACCUMULATE :]
    found = journal(resumed, "batch")
    others = unequal(expected, found)
    ends = [torch.load(Path(job.out) / "end.pt", weights_only=False) for job in (whole, resumed)]
    differences = {"losses": difference_of_losses(*losses)}
    differences |= {name: largest_difference(*(end[name] for end in ends)) for name in KEPT}
    first = f"batch {others[0] + 1} after the checkpoint" if others else ""
    if not first and (at := unequal(*losses)):
        first = f"loss {at[0] + 1} after the checkpoint, of the same batch"
    first = first or next((name for name in KEPT if differences[name]), "")
    return Comparison(batches=len(expected), other_batches=len(others), first=first, differences=differences)


def journal(job: Job, key: str) -> list[str]:
    """Return what a job's process wrote down under a key."""
    lines = map(json.loads, job.journal.read_text().splitlines())
    return [line[key] for line in lines if key in line]


def unequal(expected: Sequence[str], found: Sequence[str]) -> list[int]:
    """Return the places where two lists differ; a place that one of them lacks counts."""
    length = max(len(expected), len(found))
    padded = [[*values, *[""] * (length - len(values))] for values in (expected, found)]
    return [place for place, pair in enumerate(zip(*padded, strict=True)) if pair[0] != pair[1]]


def difference_of_losses(expected: Sequence[str], found: Sequence[str]) -> float:
    """Return the largest relative difference of losses at the same place; infinite where one is missing."""
    if len(expected) != len(found):
        return float("inf")
    pairs = [(float.fromhex(one), float.fromhex(other)) for one, other in zip(expected, found, strict=True)]
    return max(abs(one - other) / abs(one) for one, other in pairs)


def largest_difference(expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> float:
    """Return the largest difference of tensors of the same name, relative to the tensor's largest value."""
    if expected.keys() != found.keys():
        return float("inf")
    return max(_difference(value.double(), found[name].double()) for name, value in expected.items())


def _difference(one: torch.Tensor, other: torch.Tensor) -> float:
    if torch.equal(one, other):
        return 0.0
    scale = float(one.abs().max()) or 1.0
    return float((one - other).abs().max()) / scale
