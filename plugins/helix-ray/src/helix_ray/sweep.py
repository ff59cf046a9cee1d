"""Trains one config many times with other values, by Ray Tune."""

from __future__ import annotations

import itertools
import random
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs

from helix_kernel.config import Config, resolve_document
from helix_kernel.config.document import read_document
from helix_kernel.errors import HelixError, InputError, did_you_mean
from helix_ray.expressions import Search, assignment, parse_searches
from helix_ray.launch import absolute, cause_of
from helix_ray.stopped import tell_stopped
from helix_ray.worker import run_trial

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Mode = Literal["min", "max"]
Scheduler = Literal["fifo", "asha"]


@attrs.frozen(kw_only=True)
class Plan:
    """A sweep that was checked and has not begun.

    Args:
        file: The config's file.
        overrides: Assignments that all trials have in common.
        metric: What trials are compared by.
        mode: Whether less of it is better, or more.
        trials: The assignments of each trial on top.
        configs: The frozen table of each trial.
    """

    file: str
    overrides: tuple[str, ...]
    metric: str
    mode: Mode
    trials: tuple[Mapping[str, Any], ...]
    configs: tuple[dict[str, Any], ...]

    @property
    def folder(self) -> Path:
        """What holds the directories of the trials."""
        return Path(self.configs[0]["trainer"]["out"]).parent

    def command(self, number: int) -> str:
        """Return the command that trains a trial's config, as a shell takes it."""
        own = [assignment(key, value) for key, value in self.trials[number].items()]
        return shlex.join(["helix", "train", self.file, *self.overrides, *own])


@attrs.frozen(kw_only=True)
class Trial:
    """What one trial came to.

    Args:
        number: Which one, from 0.
        values: What its keys were given.
        status: "stopped" where the scheduler ended it before its last step.
        metric: The last value of the sweep's metric; None where it was never measured.
        step: Steps done when that was measured.
        out: The run's directory.
        error: What went wrong, in one line; empty if nothing did.
    """

    number: int
    values: Mapping[str, Any]
    status: Literal["done", "stopped", "failed"]
    metric: float | None
    step: int
    out: str
    error: str = ""


def plan_sweep(
    file: str,
    overrides: Sequence[str],
    searches: Sequence[str],
    *,
    trials: int,
    metric: str = "validation_loss",
    mode: Mode = "min",
    seed: int = 0,
) -> Plan:
    """Draw the values of all trials, and check the config of each before anything runs.

    Args:
        file: The TOML file.
        overrides: Assignments that all trials have in common.
        searches: Expressions; see `helix_ray.expressions`.
        trials: How many values are drawn; each once for every point of the grids.
        metric: What trials are compared by.
        mode: Whether less of it is better, or more.
        seed: The same seed gives the same trials.

    Raises:
        InputError: An expression is wrong, or the sweep's folder holds trials already.
        ConfigError: A trial's config is wrong: a key that does not exist, a value that is not allowed.
    """
    if trials < 1:
        raise InputError(f"--trials is {trials}, allowed is >= 1")
    if not searches:
        raise InputError("nothing to search: give --search key=kind(…), such as optimizer.lr=uniform(0.1,1)")
    drawn = draw_trials(parse_searches(searches), trials, seed=seed)
    configs = [
        _trial_config(file, [*overrides, *itertools.starmap(assignment, values.items())], metric, number)
        for number, values in enumerate(drawn)
    ]
    plan = Plan(
        file=file,
        overrides=tuple(overrides),
        metric=metric,
        mode=mode,
        trials=tuple(drawn),
        configs=tuple(config.to_dict() for config in configs),
    )
    if any(plan.folder.glob("trial-*")):
        raise InputError(f"{str(plan.folder)!r} holds trials already; choose another trainer.out")
    return plan


def draw_trials(searches: Sequence[Search], trials: int, *, seed: int) -> list[dict[str, Any]]:
    """Return the values of each trial: every point of the grids, each with `trials` draws of the rest."""
    generator = random.Random(seed)  # noqa: S311 - no secret
    grids = [[(s.key, value) for value in s.arguments] for s in searches if s.kind == "grid"]
    others = [search for search in searches if search.kind != "grid"]
    found = []
    for point in itertools.product(*grids):
        for _ in range(trials if others else 1):
            values = {**dict(point), **{search.key: search.draw(generator) for search in others}}
            found.append({search.key: values[search.key] for search in searches})
    return found


def run_sweep(
    plan: Plan, *, scheduler: Scheduler, cpus: float, gpus: float, storage: str | None
) -> list[Trial]:
    """Run the trials on the cluster that this process is connected to, as many at once as it has room for.

    A trial that fails is told of, and the others go on.

    Args:
        plan: What to run.
        scheduler: "asha" stops a trial early whose metric is behind; "fifo" none.
        cpus: CPUs that a trial takes.
        gpus: GPUs that a trial takes.
        storage: Where Ray keeps its own records; left out: ``ray`` in the sweep's folder.

    Returns:
        The trials in order.

    Raises:
        HelixError: Ray could not run the sweep at all.
    """
    from ray import tune

    trainable = tune.with_resources(
        tune.with_parameters(run_trial, job={"configs": plan.configs, "folder": str(Path.cwd())}),
        {"cpu": cpus, **({"gpu": gpus} if gpus else {})},
    )
    tuner = tune.Tuner(
        trainable,
        param_space={"trial": tune.grid_search(list(range(len(plan.trials))))},
        tune_config=tune.TuneConfig(
            metric=plan.metric, mode=plan.mode, scheduler=_scheduler(scheduler, plan)
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=absolute(storage) if storage else str(plan.folder / "ray"),
            failure_config=tune.FailureConfig(max_failures=0),
            verbose=0,
        ),
    )
    try:
        results = tuner.fit()
    except tune.TuneError as error:
        raise HelixError(f"Ray could not run the sweep: {error}") from error
    trials = [_outcome(plan, result) for result in results]
    for trial in trials:
        if trial.status == "stopped":
            tell_stopped(Path(trial.out))
    return sorted(trials, key=lambda trial: trial.number)


def best_of(trials: Sequence[Trial], plan: Plan) -> Trial:
    """Return the trial with the best last value of the metric.

    Raises:
        HelixError: No trial measured it.
    """
    measured = [trial for trial in trials if trial.metric is not None and trial.status != "failed"]
    if not measured:
        errors = sorted({trial.error for trial in trials if trial.error})
        told = f"; errors: {'; '.join(errors[:3])}" if errors else ""
        raise HelixError(f"no trial came to a value of {plan.metric!r}{told}")
    sign = 1 if plan.mode == "min" else -1
    return min(measured, key=lambda trial: sign * (trial.metric or 0.0))


def _trial_config(file: str, overrides: Sequence[str], metric: str, number: int) -> Config:
    """Return a trial's config: a directory of its own, and the logger that reports to Ray."""
    table = read_document(file, overrides)
    whole = resolve_document(table, source=file)
    trainer = {**table["trainer"]} if isinstance(table.get("trainer"), dict) else {}
    folder = Path(whole["trainer"].to_table()["out"]).resolve()
    trainer["out"] = str(folder / f"trial-{number:04d}")
    trainer["loggers"] = [*trainer.get("loggers", []), {"use": "ray", "metric": metric}]
    return resolve_document({**table, "trainer": trainer}, source=file)


def _scheduler(name: Scheduler, plan: Plan) -> Any:
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    if name == "fifo":
        return FIFOScheduler()
    steps = max(config["trainer"]["steps"] for config in plan.configs)
    return ASHAScheduler(
        time_attr="step",
        max_t=steps,
        grace_period=max(1, steps // 10),
        stop_last_trials=False,  # a trial that comes to its last step ends by itself, with its report
    )


def _outcome(plan: Plan, result: Any) -> Trial:
    number = result.config["trial"]
    measured = result.metrics or {}
    metric, step = measured.get(plan.metric), measured.get("step", 0)
    if result.error is None and metric is None:
        known = [name for name in measured if not name.startswith(("time", "config"))]
        error = f"it never measured {plan.metric!r}.{did_you_mean(plan.metric, known)}"
    else:
        error = "" if result.error is None else _line(cause_of(result.error))
    is_done = step >= plan.configs[number]["trainer"]["steps"]
    return Trial(
        number=number,
        values=plan.trials[number],
        status="failed" if error else "done" if is_done else "stopped",
        metric=metric,
        step=step,
        out=plan.configs[number]["trainer"]["out"],
        error=error,
    )


def _line(error: BaseException) -> str:
    """Return an error's last words in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
