"""What the files of a run's directory tell of it, those of runs from before ``run.json`` too."""

from __future__ import annotations

import json
import os
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel.checkpoint import Checkpoint, steps_at
from helix_kernel.errors import CheckpointError, DataError, InputError
from helix_train.run_file import RUN_FILE, RunRecord, read_run_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

CONFIG, METRICS, TIMING, EVENTS = "config.toml", "metrics.jsonl", "timing.jsonl", "events.jsonl"


def is_run(path: Path) -> bool:
    """Whether a directory is that of a run: it has a config, and metrics or a run file."""
    return (path / CONFIG).is_file() and any((path / name).is_file() for name in (METRICS, RUN_FILE))


def find_runs(folders: Sequence[Path]) -> Iterator[Path]:
    """Yield the runs in and below folders, by name; links are not followed, nor hidden folders entered.

    Raises:
        InputError: A folder is not there.
    """
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{str(folder)!r} is no folder; name one that holds runs")
        for parent, names, _ in os.walk(folder):
            if is_run(Path(parent)):
                yield Path(parent)
                names.clear()
            names[:] = sorted(name for name in names if not name.startswith("."))


def require_run(path: Path) -> Path:
    """Return a run's directory.

    Raises:
        InputError: The path is none.
    """
    if not is_run(path):
        what = "does not exist" if not path.exists() else f"has no {CONFIG} with {METRICS} or {RUN_FILE}"
        raise InputError(f"{str(path)!r} {what}; name the directory of a run (trainer.out)")
    return path


def read_run(path: Path) -> RunRecord:
    """Return what is known of a run; of what ``run.json`` leaves out, what its other files tell.

    Raises:
        DataError: ``run.json``, or where there is none the config, is damaged.
    """
    record = read_run_file(path) or _reconstructed(path)
    if record.evaluation is None:
        record = attrs.evolve(record, evaluation=_evaluation(path))
    return record


def last_with(path: Path, key: str) -> dict[str, Any] | None:
    """Return the last line of a file of records that has a key; lines that are no records are passed over."""
    content = path.read_bytes() if path.is_file() else b""
    end = len(content)
    while (found := content.rfind(f'"{key}"'.encode(), 0, end)) >= 0:
        start = content.rfind(b"\n", 0, found) + 1
        with suppress(ValueError):
            record = json.loads(content[start : _end_of_line(content, found)])
            if isinstance(record, dict) and isinstance(record.get("step"), int) and key in record:
                return record
        end = start
    return None


def number(table: Mapping[str, Any] | None, key: str) -> float | None:
    """Return a number of a table, or None where it has none there."""
    value = (table or {}).get(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _end_of_line(content: bytes, position: int) -> int:
    end = content.find(b"\n", position)
    return len(content) if end < 0 else end


def _reconstructed(path: Path) -> RunRecord:
    """Return what config, metrics and the newest checkpoint tell; whether the run ended nobody wrote down."""
    config = _config(path)
    saved = _newest_attributes(path)
    steps = number(config.get("trainer"), "steps")
    reached = [number(last_with(path / METRICS, "step"), "step"), number(saved, "step")]
    step = int(max(value or 0 for value in reached))
    timing = list(_lines(path / TIMING))
    fingerprint = saved.get("data_fingerprint")
    return RunRecord(
        status="done" if steps is not None and step >= steps else "unknown",
        started_at="",
        updated_at=str(saved.get("saved_at", "")),
        wall_time=number(saved, "wall_time") or sum(number(record, "seconds") or 0.0 for record in timing),
        step=step,
        steps=None if steps is None else int(steps),
        config=config,
        components=_table(saved, "components") or _table(_table(config, "kernel"), "components"),
        ops=_table(saved, "ops"),
        data_fingerprint=fingerprint if isinstance(fingerprint, str) else None,
        environment=_table(saved, "environment"),
        tokens_per_step=_tokens_per_step(timing),
        checkpoint=saved.get("path"),
    )


def _config(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads((path / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path / CONFIG} cannot be read: {error}") from error


def _newest_attributes(path: Path) -> dict[str, Any]:
    """Return what the newest checkpoint with a sound manifest tells, and its path; no array is read."""
    with suppress(CheckpointError):
        for place in reversed(steps_at(path)):
            with suppress(CheckpointError), Checkpoint.open(place) as checkpoint:
                return {**checkpoint.attributes, "path": str(place)}
    return {}


def _evaluation(path: Path) -> dict[str, float | None] | None:
    last = last_with(path / METRICS, "validation_loss")
    if last is None:
        return None
    names = ("loss", "bits_per_byte", "accuracy")
    found = {name: number(last, f"validation_{name}") for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _tokens_per_step(timing: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the tokens of a step, from the speed and time of the last steps that were recorded."""
    *_, before, last = ({"step": 0}, {"step": 0}, *timing)
    speed, seconds = number(last, "tokens_per_second"), number(last, "seconds")
    steps = (number(last, "step") or 0) - (number(before, "step") or 0)
    if speed is None or seconds is None or steps <= 0:
        return None
    return round(speed * seconds / steps)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.is_file():
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                with suppress(ValueError):
                    record = json.loads(line)
                    if isinstance(record, dict):
                        yield record


def _table(holder: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = holder.get(key)
    return dict(value) if isinstance(value, dict) else {}
