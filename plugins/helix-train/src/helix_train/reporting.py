"""Tells of a run as it goes: to whoever watches, to its own files, and to its loggers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helix_train.loggers.composite import Loggers
from helix_train.plot import draw_loss_curve
from helix_train.records import Recorder, StepReport, read_records

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from helix_kernel.config import Resolved
    from helix_train.evaluation import Evaluation
    from helix_train.loggers.base import RunInfo, Status
    from helix_train.progress import Progress


class Reporter:
    """Tells of a run, on the one rank that does.

    Args:
        progress: Shows it to whoever watches.
        loggers: Take its metrics on, besides its own files.
    """

    def __init__(self, progress: Progress, loggers: tuple[Any, ...]) -> None:
        self._progress = progress
        self._loggers = Loggers(loggers, progress.note)

    def open(self, run: RunInfo, *, steps: int, in_bits: bool) -> None:
        """Open the run's files, and forget what they hold of steps after the one it goes on from.

        Args:
            run: The run.
            steps: How many steps it will have in all.
            in_bits: Whether the training loss is one of predicted bytes, in nats.
        """
        self._recorder = Recorder(run.out, step=run.step, in_bits=in_bits)
        self._loggers.begin(run)
        self._progress.begin(step=run.step, steps=steps)

    def note(self, text: str) -> None:
        """Show a line to whoever watches."""
        self._progress.note(text)

    def event(self, step: int, name: str, text: str) -> None:
        """Write down that something out of the ordinary happened, and show it."""
        self._recorder.event(step=step, name=name, text=text)
        self.note(f"step {step}: {text}")

    def training(self, report: StepReport) -> None:
        """Tell of a training step."""
        update = self._recorder.training(report)
        self._progress.update(update)
        values = {**report.values(update.bits_per_byte), **report.speed}
        values["tokens_per_second"] = update.tokens_per_second
        self._loggers.log(report.step, _known(values))

    def validation(self, step: int, evaluation: Evaluation) -> None:
        """Tell of a validation."""
        self._recorder.validation(step=step, evaluation=evaluation)
        self.note(f"step {step}: {evaluation} held out")
        self._loggers.log(step, _known(evaluation.values()))

    def drop_after(self, step: int) -> None:
        """Forget the steps after one, to which the run has gone back."""
        self._recorder.drop_after(step)

    def paused(self) -> AbstractContextManager[object]:
        """Do not count the time of the block as training."""
        return self._recorder.paused()

    def draw(self, path: Path) -> Path | None:
        """Draw the loss curve, or return None where the library for it is missing."""
        plot = draw_loss_curve(read_records(self._recorder.metrics), path)
        if plot is None:
            self.note("no loss curve is drawn: pip install 'helix-train[plot]'")
        return plot

    def close(self, status: Status) -> None:
        """Close the files, tell the loggers how the run ended, and leave the terminal as it was found."""
        self._progress.close()
        if hasattr(self, "_recorder"):
            self._recorder.close()
            self._loggers.finish(status)


def measurements(model: Any) -> dict[str, float]:
    """Return what the modules of a model measure of themselves, such as the use of a codebook."""
    return {
        f"{path}.{name}" if path else name: float(value)
        for path, module in model.named_modules()
        if hasattr(module, "measurements")
        for name, value in module.measurements().items()
    }


def counts_bits(loss: Resolved, dataset: Any) -> bool:
    """Whether the training loss is a mean over predicted bytes in nats, so that it can be told in bits."""
    arguments = loss.arguments
    return (
        loss.component.name == "cross-entropy"
        and not arguments.get("label_smoothing")
        and arguments.get("reduction", "mean") == "mean"
        and getattr(dataset, "tokens_per_byte", 1.0) == 1.0
    )


def _known(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}
