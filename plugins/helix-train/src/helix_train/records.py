"""Metrics as JSON lines: what a run computed, and apart from it how fast.

``metrics.jsonl`` holds only what the config determines, so that two equal runs have equal
files; times go to ``timing.jsonl``, and what is out of the ordinary to ``events.jsonl``.
"""

from __future__ import annotations

import json
import math
import time
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel.errors import DataError
from helix_train.progress import Update
from helix_train.speed import Speed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import TextIO

    from helix_train.evaluation import Evaluation

Record = dict[str, Any]


@attrs.frozen(kw_only=True)
class StepReport:
    """What is told of a training step.

    Args:
        step: Steps done.
        loss: Mean loss of the step's batches.
        norm: Norm of the gradient before clipping.
        rate: Learning rate of the first parameter group.
        n_tokens: Tokens in a step.
        auxiliary: What the model itself added to the loss, if it does.
        more: What else was measured, by name.
        waited: Seconds that the run has waited for data so far.
    """

    step: int
    loss: float
    norm: float
    rate: float
    n_tokens: int
    auxiliary: float | None = None
    more: Mapping[str, float] = attrs.field(factory=dict)
    waited: float = 0.0

    def values(self, bits_per_byte: float | None) -> Record:
        """Return what the config determines, by the names that it is recorded under."""
        return {
            "loss": self.loss,
            "auxiliary_loss": self.auxiliary,
            "bits_per_byte": bits_per_byte,
            "grad_norm": self.norm,
            "lr": self.rate,
            **self.more,
        }


class Recorder:
    """Writes down what happens at each step, every line at once, for other processes to read.

    Args:
        out: The run's directory.
        step: The run goes on from this step: lines of later ones are dropped.
        in_bits: Whether the training loss is one of predicted bytes, in nats.
        speed: Turns what was done into rates.
    """

    def __init__(self, out: Path, *, step: int, in_bits: bool, speed: Speed | None = None) -> None:
        self._speed = Speed() if speed is None else speed
        self.metrics = out / "metrics.jsonl"
        self._out = out
        self._in_bits = in_bits
        self._step, self._clock = step, 0.0
        self._open(step)
        self._events = _append_to(out / "events.jsonl")

    def training(self, report: StepReport) -> Update:
        """Record a training step."""
        now = time.perf_counter()
        seconds = now - self._clock
        tokens_per_second = (report.step - self._step) * report.n_tokens / seconds
        bits = report.loss / math.log(2) if self._in_bits else None
        self._metrics.write(_line({"step": report.step, **report.values(bits)}))
        rates = self._speed.rates(steps=report.step - self._step, seconds=seconds, waited=report.waited)
        timing = {"seconds": seconds, "tokens_per_second": tokens_per_second, **rates}
        self._timing.write(_line({"step": report.step, **timing}))
        self._step, self._clock = report.step, now
        return Update(
            report.step,
            report.loss,
            bits,
            tokens_per_second,
            rate=report.rate,
            norm=report.norm,
            data_wait=rates["data_wait"],
            mfu=rates.get("mfu"),
        )

    def validation(self, *, step: int, evaluation: Evaluation) -> None:
        """Record a validation, unless that of this step is there: a finished run may be resumed."""
        if step in self._validated:
            return
        self._validated.add(step)
        self._metrics.write(_line({"step": step, **evaluation.values()}))

    def event(self, *, step: int, name: str, text: str) -> None:
        """Record something out of the ordinary; no later return to an earlier step takes it back."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._events.write(_line({"step": step, "event": name, "text": text, "time": now}))

    def drop_after(self, step: int) -> None:
        """Forget the steps after one, to which the run has gone back."""
        self._metrics.close()
        self._timing.close()
        self._open(step)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time of the block as training."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._clock += time.perf_counter() - start

    def close(self) -> None:
        """Close the files, all of them even where one cannot be."""
        with ExitStack() as stack:
            for file in (self._metrics, self._timing, self._events):
                stack.callback(file.close)

    def _open(self, step: int) -> None:
        timing = self._out / "timing.jsonl"
        kept = _drop_after(self.metrics, step)
        _drop_after(timing, step)
        self._validated = {record["step"] for record in kept if "validation_loss" in record}
        self._metrics, self._timing = _append_to(self.metrics), _append_to(timing)
        self._step, self._clock = step, time.perf_counter()


def read_records(path: Path) -> list[Record]:
    """Return the records of a file; a last line that a kill cut short is left out.

    Raises:
        DataError: Another line is not a record.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    return [_record(line, f"{path}, line {number}") for number, line in enumerate(whole, 1)]


def _record(line: str, where: str) -> Record:
    try:
        record: Record = json.loads(line)
        if type(record["step"]) is int:
            return record
    except (ValueError, KeyError, TypeError):
        pass
    raise DataError(f"{where}: not a JSON object with a step: {line.strip()[:60]!r}; remove it")


def _drop_after(path: Path, step: int) -> list[Record]:
    kept = [record for record in read_records(path) if record["step"] <= step] if step else []
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text("".join(map(_line, kept)), encoding="utf-8")
    temporary.replace(path)
    return kept


def _append_to(path: Path) -> TextIO:
    return path.open("a", encoding="utf-8", buffering=1)


def _line(record: Record) -> str:
    return json.dumps({key: value for key, value in record.items() if value is not None}) + "\n"
