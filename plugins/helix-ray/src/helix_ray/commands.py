"""The commands `helix ray train` and `helix ray tune`."""

from __future__ import annotations

import json as _json
import math
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel import load_config
from helix_kernel.errors import InputError
from helix_kernel.lock import load_locked
from helix_ray.sweep import Mode, Plan, Scheduler, best_of, plan_sweep, run_sweep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from helix_ray.sweep import Trial


def train(
    file: str,
    /,
    *overrides: str,
    workers: int = 1,
    cpus_per_worker: float = 1,
    gpus_per_worker: float = 0,
    address: str = "local",
    max_failures: int = 3,
    storage: str | None = None,
    locked: bool = False,
    lock: str | None = None,
    json: bool = False,
) -> None:
    """Train what a config describes with workers of a Ray cluster.

    A worker that dies costs the steps since the last checkpoint, and nothing else: the workers are started
    again, and go on from there.

    Args:
        file: The TOML file, the same as for helix train.
        overrides: Assignments such as ``model.d_model=512``.
        workers: Processes that share each step.
        cpus_per_worker: CPUs that each takes of the cluster.
        gpus_per_worker: GPUs that each takes.
        address: local starts Ray on this machine for this run; auto is the cluster that runs here; or an
            address such as ray://host:10001.
        max_failures: How often the workers are started again after one died; -1: always.
        storage: Where Ray keeps its own records; left out: ray in the run's directory.
        locked: Refuse to run where the config or what serves it is not as helix config lock recorded, on this
            machine or on a worker's.
        lock: Hold to this lock instead of the one beside the config.
        json: Print one JSON object at the end.
    """
    from helix_ray.cluster import connected
    from helix_ray.launch import Workers, train_on_ray

    _check(workers=(workers, 1), max_failures=(max_failures, -1))
    _check_resources(cpus_per_worker, gpus_per_worker, each="worker")
    held = locked or lock is not None
    config = load_locked(file, overrides, lock=lock) if held else load_config(file, overrides)
    _ = config["trainer"]  # which asks for the other sections itself
    asked = Workers(count=workers, cpus=cpus_per_worker, gpus=gpus_per_worker, max_failures=max_failures)
    with connected(address, cpus=math.ceil(workers * cpus_per_worker)), redirect_stdout(sys.stderr):
        outcome = train_on_ray(config, asked, storage=storage, locked=held)
    _print(outcome, as_json=json)


def tune(
    file: str,
    /,
    *overrides: str,
    search: tuple[str, ...] = (),
    trials: int = 10,
    metric: str = "validation_loss",
    mode: Mode = "min",
    scheduler: Scheduler = "fifo",
    seed: int = 0,
    cpus_per_trial: float = 1,
    gpus_per_trial: float = 0,
    address: str = "local",
    storage: str | None = None,
    json: bool = False,
) -> None:
    """Train a config many times with other values of some keys, and say which did best.

    Values are drawn, and the config of every trial checked, before the first one begins. Each trial has a
    directory of its own in trainer.out; one that fails does not stop the others.

    Args:
        file: The TOML file, the same as for helix train.
        overrides: Assignments that all trials have in common.
        search: What a key is drawn from, such as ``optimizer.lr=loguniform(1e-4,1e-2)`` or
            ``model.d_model=choice(64,128)``; once for each key. Also uniform, randint, lograndint, and grid,
            of which every value is taken.
        trials: How often values are drawn, for each point of the grids.
        metric: What trials are compared by; a name in metrics.jsonl.
        mode: Whether less of it is better, or more.
        scheduler: asha stops trials early that are behind; fifo lets each end.
        seed: The same seed draws the same values.
        cpus_per_trial: CPUs that a trial takes of the cluster.
        gpus_per_trial: GPUs that a trial takes.
        address: As for helix ray train.
        storage: Where Ray keeps its own records; left out: ray in trainer.out.
        json: Print one JSON object at the end.
    """
    from helix_ray.cluster import connected

    _check_resources(cpus_per_trial, gpus_per_trial, each="trial")
    plan = plan_sweep(file, overrides, search, trials=trials, metric=metric, mode=mode, seed=seed)
    with connected(address, cpus=math.ceil(cpus_per_trial)), redirect_stdout(sys.stderr):
        found = run_sweep(
            plan, scheduler=scheduler, cpus=cpus_per_trial, gpus=gpus_per_trial, storage=storage
        )
    if not json:
        _print_trials(found, plan)
    best = best_of(found, plan)
    summary = {
        "best": best.number,
        plan.metric: best.metric,
        "out": best.out,
        "command": plan.command(best.number),
    }
    if json:
        print(_json.dumps({**summary, "trials": [attrs.asdict(trial) for trial in found]}))
    else:
        _print(summary, as_json=False)


def _check(**numbers: tuple[int, int]) -> None:
    for name, (value, least) in numbers.items():
        if value < least:
            raise InputError(f"--{name.replace('_', '-')} is {value}, allowed is >= {least}")


def _check_resources(cpus: float, gpus: float, *, each: str) -> None:
    if cpus <= 0:
        raise InputError(f"--cpus-per-{each} is {cpus}, allowed is > 0")
    if gpus < 0:
        raise InputError(f"--gpus-per-{each} is {gpus}, allowed is >= 0")


def _print(results: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(_json.dumps(results))
        return
    for key, value in results.items():
        print(f"{key.replace('_', ' '):<26} {_shown(value)}")


def _print_trials(trials: Sequence[Trial], plan: Plan) -> None:
    keys = list(plan.trials[0])
    rows = [["trial", *keys, plan.metric, "step", "status"]]
    rows += [
        [str(t.number), *(_shown(t.values[key]) for key in keys), _shown(t.metric), str(t.step), t.status]
        for t in trials
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for trial in trials:
        if trial.error:
            print(f"trial {trial.number}: {trial.error}")


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
