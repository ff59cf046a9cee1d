"""The checkpoints that a run has left: their steps, sizes and metrics; no array is read."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel.checkpoint import Checkpoint, steps_at
from helix_kernel.checkpoint.difference import leaves
from helix_kernel.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from helix_kernel.checkpoint.location import Place


@attrs.frozen(kw_only=True)
class Saved:
    """A checkpoint.

    Args:
        name: Of its directory.
        saved_at: When, in UTC; empty where it does not say.
        nbytes: Its size on disk, with what it shares with others.
        metrics: What was measured at its step.
        damage: Why it cannot be read, or None.
    """

    name: str
    saved_at: str
    nbytes: int
    metrics: Mapping[str, float]
    damage: str | None


def saved_checkpoints(run: Path) -> list[Saved]:
    """Return the checkpoints of a run, ascending by step."""
    with suppress(CheckpointError):
        return [_saved(place) for place in steps_at(run / "checkpoints")]
    return []


def size_on_disk(run: Path) -> int:
    """Return the bytes that all checkpoints of a run take together; what they share counts once."""
    stats = [path.stat() for path in _files(run / "checkpoints")]
    return sum({(stat.st_dev, stat.st_ino): stat.st_size for stat in stats}.values())


def _saved(place: Place) -> Saved:
    attributes: dict[str, Any] = {}
    damage = None
    try:
        with Checkpoint.open(place) as checkpoint:
            attributes = checkpoint.attributes
    except CheckpointError as error:
        damage = str(error)
    numbers = leaves(attributes.get("metrics", {}))
    return Saved(
        name=place.name,
        saved_at=str(attributes.get("saved_at", "")),
        nbytes=sum(path.stat().st_size for path in _files(place)) if isinstance(place, Path) else 0,
        metrics={name: value for name, value in numbers if isinstance(value, int | float)},
        damage=damage,
    )


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())
