"""The commands `checkpoint list`, `checkpoint verify` and `checkpoint prune`: of a run's steps."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from helix_kernel.checkpoint import Checkpoint, CheckpointManager, Retention, steps_at
from helix_kernel.checkpoint.damage import damage
from helix_kernel.checkpoint.difference import leaves
from helix_kernel.checkpoint.manifest import MANIFEST
from helix_kernel.cli.checkpoint_path import is_checkpoint
from helix_kernel.cli.output import print_json, print_table, readable_size, strict_json
from helix_kernel.errors import ArgumentError, CheckpointError

if TYPE_CHECKING:
    from helix_kernel.checkpoint.location import Place


def list_steps(run: str, *, verify: bool = False, json: bool = False) -> None:
    """List a run's checkpoints: step, size on disk, when it was saved, metrics, and whether it is good.

    Args:
        run: A run's directory, or one checkpoint.
        verify: Read every byte. Without it a step is complete where its manifest is sound and its
            files have their sizes.
        json: Print one JSON object.
    """
    steps = []
    for place in _existing(run):
        with suppress(FileNotFoundError):  # retention has removed it meanwhile
            steps.append(_described(place, verify=verify))
    if json:
        print_json({"run": run, "steps": strict_json(steps)})
        return
    rows = [
        (
            step["name"],
            readable_size(step["bytes"]),
            readable_size(step["shared_bytes"]) if step["shared_bytes"] else "",
            step["saved"],
            "  ".join(f"{name} {value:.4g}" for name, value in step["metrics"].items()),
            "; ".join([step["state"], *step["damage"]]),
        )
        for step in steps
    ]
    print_table(("step", "on disk", "shared", "saved", "metrics", "state"), rows)


def verify(path: str, *, json: bool = False) -> int:
    """Read every byte of a checkpoint, or of all of a run's, and name what is damaged.

    Args:
        path: A checkpoint or a run's directory.
        json: Print one JSON object.

    Returns:
        0, or 1 where something is damaged.
    """
    found = {}
    for place in _existing(path):
        messages = damage(place)
        if not (messages and _is_gone(place)):  # retention may have removed it meanwhile
            found[str(place)] = messages
    if json:
        steps = [{"path": name, "good": not messages, "damage": messages} for name, messages in found.items()]
        print_json({"path": path, "good": not any(found.values()), "steps": steps})
    else:
        for name, messages in found.items():
            print("\n  ".join([f"{name}: {'damaged' if messages else 'good'}", *messages]))
    return 1 if any(found.values()) else 0


def prune(
    run: str,
    *,
    last: int | None = None,
    every: int | None = None,
    best: int = 0,
    metric: str | None = None,
    mode: Literal["min", "max"] = "min",
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Remove a run's checkpoints that no rule keeps; the newest good one always stays.

    Args:
        run: A run's directory; nobody may be writing to it.
        last: How many of the newest stay, at least 1.
        every: Steps that are multiples of this stay.
        best: So many steps with the best value of `metric` stay.
        metric: Which of the metrics that `list` shows.
        mode: Whether the least (min) or the greatest (max) is best.
        dry_run: Only say what would be removed.
        json: Print one JSON object.
    """
    if last is None:
        raise ArgumentError("--last is missing: how many of the newest checkpoints are to stay, at least 1")
    keep = Retention(last=last, every=every, best=best, metric=metric, mode=mode)
    with CheckpointManager(_directory(run), keep=keep) as manager:
        before = manager.steps()
        removed = manager.removable() if dry_run else manager.prune()
    kept = [step for step in before if step not in removed]
    if json:
        print_json({"run": run, "dry_run": dry_run, "removed": removed, "kept": kept})
        return
    for step in removed:
        print(f"{'would remove' if dry_run else 'removed'} step {step}")
    print(f"{len(kept)} {'stays' if len(kept) == 1 else 'stay'}: {', '.join(map(str, kept))}")


def _existing(path: str) -> list[Place]:
    places = steps_at(path)
    if _is_gone(places[0]):
        raise CheckpointError(f"{places[0]} does not exist")
    return places


def _is_gone(place: Place) -> bool:
    return isinstance(place, Path) and not place.exists()


def _directory(run: str) -> Place:
    if is_checkpoint(run):
        raise ArgumentError(f"{run} is one checkpoint; prune takes the directory of a run")
    return steps_at(run)[0].parent


def _described(place: Place, *, verify: bool) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    found: list[str] = []
    packs: dict[str, int] = {}
    try:
        with Checkpoint.open(place) as checkpoint:
            attributes, packs = checkpoint.attributes, checkpoint.manifest.packs
        found = damage(place) if verify else []
    except CheckpointError as error:
        found = [str(error)]
    numbers = leaves(attributes.get("metrics", {}))
    return {
        "name": place.name,
        "path": str(place),
        "step": attributes.get("step"),
        **_on_disk(place, packs),
        "metrics": {name: value for name, value in numbers if isinstance(value, int | float)},
        "state": "damaged" if found else "good" if verify else "complete",
        "damage": found,
    }


def _on_disk(place: Place, packs: dict[str, int]) -> dict[str, Any]:
    """Return how many bytes a step takes, how many it shares with other steps, and when it was saved."""
    if not isinstance(place, Path):
        return {"bytes": sum(packs.values()), "shared_bytes": 0, "saved": ""}
    stats = [path.stat() for path in place.rglob("*") if path.is_file()]
    manifest = place / MANIFEST
    saved = (manifest if manifest.exists() else place).stat().st_mtime
    return {
        "bytes": sum(stat.st_size for stat in stats),
        "shared_bytes": sum(stat.st_size for stat in stats if stat.st_nlink > 1),
        "saved": time.strftime("%Y-%m-%d %H:%M:%S%z", time.localtime(saved)),
    }
