"""The logger `tensorboard`: event files that TensorBoard shows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from helix_kernel.errors import DependencyError
from helix_train.loggers.flat import flat_config

if TYPE_CHECKING:
    from collections.abc import Mapping

    from helix_train.loggers.base import RunInfo, Status


class TensorBoardLogger:
    """Writes event files: a curve for each metric, and the config as text and as hyperparameters.

    Where a run resumes or goes back, TensorBoard is told at once to forget the steps that no longer count.

    Args:
        directory: Where the files go, below the run's directory or absolute.
        flush_seconds: Most seconds until a value is on disk.
    """

    def __init__(self, *, directory: str = "tensorboard", flush_seconds: float = 10.0) -> None:
        self._directory = directory
        self._flush_seconds = flush_seconds
        self._writer: Any = None
        self._hparams_end: Any = None
        self._step = 0

    def begin(self, run: RunInfo) -> None:
        """Open an event file.

        Raises:
            DependencyError: TensorBoard is not installed.
        """
        self._writer = _summary_writer()(
            str(run.out / self._directory),
            purge_step=run.step + 1 if run.step else 0,
            flush_secs=self._flush_seconds,
        )
        self._step = run.step
        for name, told in (("config", run.config), ("environment", run.environment)):
            self._writer.add_text(name, _as_code(told), run.step)
        self._add_hparams(run)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        if step < self._step:
            self._forget(step)
        self._step = step
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def drop_after(self, step: int) -> None:
        """Let TensorBoard forget the points of the steps after one."""
        self._forget(step + 1)
        self._step = step

    def finish(self, status: Status) -> None:
        """Write what is left, and how a run that is done ended."""
        if status == "done":
            self._writer.file_writer.add_summary(self._hparams_end)
        self._writer.close()

    def _forget(self, step: int) -> None:
        """Say that the points from a step on do not count any more, as a program that starts again does."""
        from tensorboard.compat.proto.event_pb2 import (  # type: ignore[import-untyped]  # it has no types
            Event,
            SessionLog,
        )

        start = SessionLog(status=SessionLog.START)
        self._writer.file_writer.add_event(Event(step=step, session_log=start), step)

    def _add_hparams(self, run: RunInfo) -> None:
        from torch.utils.tensorboard import summary

        hparams: Any = summary.hparams  # torch gives it no types
        metrics = dict.fromkeys(("loss", "validation_loss"))
        experiment, start, self._hparams_end = hparams(flat_config(run.config), metrics)
        self._writer.file_writer.add_summary(experiment)
        self._writer.file_writer.add_summary(start)


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise DependencyError(
            "the logger tensorboard needs TensorBoard; install it with pip install 'helix-train[tensorboard]'"
        ) from error
    return SummaryWriter


def _as_code(told: Mapping[str, Any]) -> str:
    """Return a mapping as the Markdown of a block of code."""
    lines = json.dumps(told, indent=2, default=str, ensure_ascii=False).splitlines()
    return "\n".join(f"    {line}" for line in lines)
