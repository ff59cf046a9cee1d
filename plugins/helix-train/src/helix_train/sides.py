"""Two things that `helix diff` compares: config files, runs or checkpoints, told alike."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs

from helix_kernel import load_config
from helix_kernel.checkpoint import Checkpoint, steps_at
from helix_kernel.checkpoint.difference import ABSENT
from helix_kernel.cli.checkpoint_path import open_checkpoint
from helix_kernel.errors import CheckpointError, InputError
from helix_train.options import differing, options
from helix_train.run_directory import is_run, read_run

if TYPE_CHECKING:
    from collections.abc import Mapping

Groups = dict[str, dict[str, Any]]


@attrs.frozen(kw_only=True)
class Side:
    """One of two things to compare.

    Args:
        kind: What it is.
        path: Where it lies.
        groups: What it tells: ``config`` by path of the option, ``components``, ``environment`` and others
            by name; those of which it tells nothing are absent.
    """

    kind: Literal["config", "run", "checkpoint"]
    path: str
    groups: Groups


@attrs.frozen(kw_only=True)
class Change:
    """What differs in one group of both sides.

    Args:
        changed: Name → both values.
        added: Name → the value that only the second has.
        removed: Name → the value that only the first has.
    """

    changed: Mapping[str, tuple[Any, Any]]
    added: Mapping[str, Any]
    removed: Mapping[str, Any]


def side_at(path: str) -> Side:
    """Return what lies at a path.

    Raises:
        InputError: It is neither a config file, nor a run, nor a checkpoint.
        ConfigError: It is a file, but no config that fits what is installed.
    """
    place = Path(path)
    if "://" not in path and place.is_file():
        return _of_config(path)
    if "://" not in path and is_run(place):
        return _of_run(place)
    try:
        steps_at(path)
    except CheckpointError as error:
        what = "does not exist" if "://" not in path and not place.exists() else "is none of these"
        raise InputError(
            f"{path!r} {what}; allowed are a config file (TOML), the directory of a run, and a checkpoint"
        ) from error
    with open_checkpoint(path) as checkpoint:
        return _of_checkpoint(checkpoint)


def changes(first: Side, second: Side) -> dict[str, Change]:
    """Return what differs, by group, of the groups of which both tell something."""
    found = {}
    for group in first.groups:
        if group in second.groups:
            rows = differing([first.groups[group], second.groups[group]])
            if rows:
                found[group] = _change(rows)
    return found


def _change(rows: Mapping[str, tuple[Any, ...]]) -> Change:
    return Change(
        changed={name: (a, b) for name, (a, b) in rows.items() if a is not ABSENT and b is not ABSENT},
        added={name: b for name, (a, b) in rows.items() if a is ABSENT},
        removed={name: a for name, (a, b) in rows.items() if b is ABSENT},
    )


def _of_config(path: str) -> Side:
    config = load_config(path)
    groups = {"config": options(config.to_dict()), "components": dict(config.versions())}
    return Side(kind="config", path=path, groups=groups)


def _of_run(path: Path) -> Side:
    record = read_run(path)
    told = {
        "config": record.config,
        "components": record.components,
        "environment": record.environment,
        "ops": record.ops,
        "data": {"fingerprint": record.data_fingerprint},
        "results": {
            "status": record.state(),
            "step": record.step,
            "parameters": record.n_parameters,
            **(record.evaluation or {}),
        },
    }
    return Side(kind="run", path=str(path), groups=_groups(told))


def _of_checkpoint(checkpoint: Checkpoint) -> Side:
    attributes = checkpoint.attributes
    told = {name: attributes.get(name) for name in ("config", "components", "environment", "ops")}
    told["data"] = {"fingerprint": attributes.get("data_fingerprint")}
    return Side(kind="checkpoint", path=str(checkpoint.path), groups=_groups(told))


def _groups(told: Mapping[str, Any]) -> Groups:
    flat = {name: options(table) for name, table in told.items() if isinstance(table, dict)}
    known = {
        name: {path: value for path, value in table.items() if value is not None}
        for name, table in flat.items()
    }
    return {name: table for name, table in known.items() if table}
