"""The file ``run.json`` of a run's directory: what runs there, how far it is, how it ended."""

from __future__ import annotations

import json
import math
import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import attrs
from attrs.validators import deep_iterable, deep_mapping, in_, instance_of, optional

from helix_kernel.cli.output import strict_json
from helix_kernel.errors import DataError
from helix_train.process import Process

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from helix_train.evaluation import Evaluation

RUN_FILE = "run.json"
Ending = Literal["done", "failed", "interrupted"]
_STATUSES = ("running", "done", "failed", "interrupted", "unknown")
_NUMBER = instance_of((int, float))
_TABLE = instance_of(dict)
_FIGURES = optional(deep_mapping(instance_of(str), optional(_NUMBER), _TABLE))


@attrs.frozen(kw_only=True)
class RunRecord:
    """What ``run.json`` tells of a run.

    Args:
        status: "running" until the run ended, and for ever where it was killed, see `state`; "done", "failed"
            or "interrupted"; "unknown" of a run from before there was such a file.
        started_at: When it first began, in UTC.
        updated_at: When this was written.
        ended_at: When it ended.
        wall_time: Seconds that it took, all its resumed parts together.
        step: Steps done.
        steps: Steps of the whole run.
        process: What runs it.
        config: The whole config, every default filled in.
        components: Version by component in use.
        ops: Which backends serve which ops, as `helix_kernel.backends.Selection.as_dict` tells it.
        data_fingerprint: Names the data.
        environment: Versions, device and threads.
        n_parameters: Parameters of the model.
        flops_per_step: Floating-point operations of a step, measured or by formula.
        tokens_per_step: Tokens of a step, over all ranks.
        evaluation: ``loss``, ``bits_per_byte`` and ``accuracy`` of what is held out, where there are such.
        checkpoint: The last checkpoint.
        samples: What the model wrote at the end.
        error: Why it failed.
        resumes: ``step`` and ``time`` of each time that the run went on.
    """

    status: str = attrs.field(validator=in_(_STATUSES))
    started_at: str = attrs.field(validator=instance_of(str))
    updated_at: str = attrs.field(validator=instance_of(str))
    ended_at: str | None = attrs.field(default=None, validator=optional(instance_of(str)))
    wall_time: float = attrs.field(validator=_NUMBER)
    step: int = attrs.field(validator=instance_of(int))
    steps: int | None = attrs.field(default=None, validator=optional(instance_of(int)))
    process: Process | None = attrs.field(default=None, validator=optional(instance_of(Process)))
    config: Mapping[str, Any] = attrs.field(factory=dict, validator=_TABLE)
    components: Mapping[str, str] = attrs.field(factory=dict, validator=_TABLE)
    ops: Mapping[str, Any] = attrs.field(factory=dict, validator=_TABLE)
    data_fingerprint: str | None = attrs.field(default=None, validator=optional(instance_of(str)))
    environment: Mapping[str, Any] = attrs.field(factory=dict, validator=_TABLE)
    n_parameters: int | None = attrs.field(default=None, validator=optional(instance_of(int)))
    flops_per_step: float | None = attrs.field(default=None, validator=optional(_NUMBER))
    tokens_per_step: int | None = attrs.field(default=None, validator=optional(instance_of(int)))
    evaluation: Mapping[str, float | None] | None = attrs.field(default=None, validator=_FIGURES)
    checkpoint: str | None = attrs.field(default=None, validator=optional(instance_of(str)))
    samples: tuple[str, ...] = attrs.field(
        default=(), converter=tuple, validator=deep_iterable(instance_of(str))
    )
    error: str | None = attrs.field(default=None, validator=optional(instance_of(str)))
    resumes: tuple[Mapping[str, Any], ...] = attrs.field(
        default=(), converter=tuple, validator=deep_iterable(_TABLE)
    )

    def state(self) -> str:
        """Return the status, or "died" where it says running and the process is gone."""
        is_dead = self.status == "running" and self.process is not None and self.process.is_gone()
        return "died" if is_dead else self.status


class RunFile:
    """Keeps ``run.json`` up to date while a run goes on. Made by `begin`; of several ranks, rank 0 has one.

    The file is replaced as a whole, so that whoever reads it finds the older or the newer one.

    Args:
        path: The file.
        record: What it says at the beginning.
        before: Seconds that the run took before this process.

    Attributes:
        record: What the file on disk says.
    """

    every = 5.0
    """Least seconds between two updates on disk."""

    def __init__(self, path: Path, record: RunRecord, *, before: float) -> None:
        self.record = record
        self._news: dict[str, Any] = {}
        self._path = path
        self._before = before
        self._begun = self._written = time.monotonic()
        self._write()

    @classmethod
    def begin(
        cls,
        out: Path,
        *,
        step: int,
        steps: int,
        provenance: Mapping[str, Any],
        n_parameters: int | None = None,
        flops_per_step: float | None = None,
        tokens_per_step: int | None = None,
        wall_time: float = 0.0,
    ) -> RunFile:
        """Write that a run begins, or goes on.

        Args:
            out: The run's directory, which is there.
            step: Steps done. Above 0 the run goes on: it keeps when it started and the time it took.
            steps: Steps of the whole run.
            provenance: What `helix_train.provenance.provenance` returned.
            n_parameters: Parameters of the model.
            flops_per_step: Floating-point operations of a step, if they are known already.
            tokens_per_step: Tokens of a step, over all ranks.
            wall_time: Seconds that the run took before, as its checkpoint knows; what ``run.json`` knows
                counts too, for it has the steps that came after the checkpoint.

        Raises:
            OSError: The file cannot be written.
        """
        now = _now()
        earlier = _earlier(out) if step else None
        resumes = [*(earlier.resumes if earlier else ()), *([{"step": step, "time": now}] if step else ())]
        told = {name: provenance.get(name) for name in _TOLD}
        record = RunRecord(
            status="running",
            started_at=earlier.started_at if earlier else now,
            updated_at=now,
            wall_time=0.0,
            step=step,
            steps=steps,
            process=Process.own(),
            n_parameters=n_parameters,
            flops_per_step=flops_per_step,
            tokens_per_step=tokens_per_step,
            resumes=resumes,
            **{name: value for name, value in told.items() if value is not None},
        )
        return cls(out / RUN_FILE, record, before=max(wall_time, earlier.wall_time if earlier else 0.0))

    def update(
        self,
        *,
        step: int,
        evaluation: Evaluation | None = None,
        checkpoint: object = None,
        flops_per_step: float | None = None,
    ) -> None:
        """Take on how far the run is; the disk has it within `every` seconds of updates, or at the end.

        Args:
            step: Steps done.
            evaluation: The last one, if there is a new one.
            checkpoint: Its path, if there is a new one.
            flops_per_step: Floating-point operations of a step, once they are measured.

        Raises:
            OSError: The file cannot be written; the one before stays whole.
        """
        self._take(
            step=step,
            evaluation=_figures(evaluation),
            checkpoint=None if checkpoint is None else str(checkpoint),
            flops_per_step=flops_per_step,
        )
        if time.monotonic() - self._written >= self.every:
            self._write()

    def end(
        self,
        status: Ending,
        *,
        step: int | None = None,
        evaluation: Evaluation | None = None,
        checkpoint: object = None,
        samples: Sequence[str] = (),
        error: str | None = None,
    ) -> None:
        """Write how the run ended.

        Args:
            status: "done", "failed" or "interrupted".
            step: Steps done; the last known ones if left out.
            evaluation: The last one; the last known if left out.
            checkpoint: The last one's path; the last known if left out.
            samples: What the model wrote at the end.
            error: Why it failed.

        Raises:
            OSError: The file cannot be written; the one before stays whole.
        """
        self._take(
            status=status,
            ended_at=_now(),
            step=step,
            evaluation=_figures(evaluation),
            checkpoint=None if checkpoint is None else str(checkpoint),
            samples=list(samples) or None,
            error=error,
        )
        self._write()

    def _take(self, **news: Any) -> None:
        self._news |= {name: value for name, value in news.items() if value is not None}

    def _write(self) -> None:
        self._written = time.monotonic()
        wall_time = self._before + self._written - self._begun
        self.record = attrs.evolve(self.record, updated_at=_now(), wall_time=wall_time, **self._news)
        self._news = {}
        document = strict_json(attrs.asdict(self.record))
        temporary = self._path.with_name(f".{self._path.name}.tmp")
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(document, file, indent=1, default=str)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)


def read_run_file(out: Path) -> RunRecord | None:
    """Return what a run's directory says of it, or None where it has no ``run.json``.

    Keys that are not known are passed over: a later version may have written them.

    Raises:
        DataError: It cannot be read, or is another program's file.
    """
    path = out / RUN_FILE
    try:
        document = json.loads(path.read_bytes())
        known = {name: value for name, value in document.items() if name in _FIELDS}
        process = document.get("process")
        return RunRecord(**{**known, "process": Process(**process) if process else None})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        # A failed validator also passes on its field and value, which tell nobody anything.
        message = error.args[0] if error.args else type(error).__name__
        raise DataError(f"{path} does not describe a run: {message}; remove it") from error


_FIELDS = frozenset(field.name for field in attrs.fields(RunRecord))
_TOLD = ("config", "components", "ops", "data_fingerprint", "environment")


def _earlier(out: Path) -> RunRecord | None:
    try:
        return read_run_file(out)
    except DataError:
        return None


def _figures(evaluation: Evaluation | None) -> dict[str, float] | None:
    if evaluation is None:
        return None
    names = ("loss", "bits_per_byte", "accuracy")
    found = {name: getattr(evaluation, name) for name in names}
    return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
