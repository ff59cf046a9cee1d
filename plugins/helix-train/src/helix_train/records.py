"""Metrics as JSON lines: what a run computed, and apart from it how fast.

``metrics.jsonl`` holds only what the config determines, so that two equal runs have equal
files; times go to ``timing.jsonl``.
"""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING, Any

from helix_train.progress import Update

if TYPE_CHECKING:
    from pathlib import Path

    from helix_train.evaluation import Evaluation

Record = dict[str, Any]


class Recorder:
    """Writes down what happens at each step, every line at once, for other processes to read.

    Args:
        out: The run's directory.
        step: The run goes on from this step: lines of later ones are dropped.
        in_bits: Whether the training loss is one of predicted bytes, in nats.
    """

    def __init__(self, out: Path, *, step: int, in_bits: bool) -> None:
        self.metrics = out / "metrics.jsonl"
        self._files = [_continue(path, step) for path in (self.metrics, out / "timing.jsonl")]
        self._in_bits = in_bits
        self._step = step
        self._clock = time.perf_counter()

    def training(self, *, step: int, loss: float, norm: float, rate: float, n_tokens: int) -> Update:
        """Record a training step.

        Args:
            step: Steps done.
            loss: Mean loss of the step's batch.
            norm: Norm of the gradient before clipping.
            rate: Learning rate of the first parameter group.
            n_tokens: Tokens in a step.
        """
        now = time.perf_counter()
        tokens_per_second = (step - self._step) * n_tokens / (now - self._clock)
        bits = loss / math.log(2) if self._in_bits else None
        known = {"step": step, "loss": loss, "bits_per_byte": bits, "grad_norm": norm, "lr": rate}
        self._write(0, {key: value for key, value in known.items() if value is not None})
        self._write(1, {"step": step, "seconds": now - self._clock, "tokens_per_second": tokens_per_second})
        self._step, self._clock = step, now
        return Update(step, loss, bits, tokens_per_second)

    def validation(self, *, step: int, evaluation: Evaluation) -> None:
        """Record a validation; the time that it took is not counted as training."""
        self._write(
            0,
            {
                "step": step,
                "validation_loss": evaluation.loss,
                "validation_bits_per_byte": evaluation.bits_per_byte,
            },
        )
        self._clock = time.perf_counter()

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()

    def _write(self, index: int, record: Record) -> None:
        self._files[index].write(_line(record))


def read_records(path: Path) -> list[Record]:
    """Return the records of a file; a last line that a kill cut short is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _continue(path: Path, step: int) -> Any:
    kept = [record for record in read_records(path) if record["step"] <= step] if step else []
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text("".join(map(_line, kept)), encoding="utf-8")
    temporary.replace(path)
    return path.open("a", encoding="utf-8", buffering=1)


def _line(record: Record) -> str:
    return json.dumps(record) + "\n"
