"""Tells of a run as it goes: to whoever watches, to its own files, and to its loggers."""

from __future__ import annotations

from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import attrs

from helix_train.interruption import InterruptedRunError
from helix_train.loggers.base import RunInfo
from helix_train.loggers.composite import Loggers
from helix_train.plot import draw_loss_curve
from helix_train.records import Recorder, StepReport, read_records
from helix_train.report import write_report
from helix_train.run_file import RunFile
from helix_train.speed import Speed, peak_flops

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path
    from types import TracebackType

    import torch

    from helix_kernel.config import Resolved
    from helix_train.evaluation import Evaluation
    from helix_train.loggers.base import Status
    from helix_train.precision import Precision
    from helix_train.progress import Progress
    from helix_train.trainer import Trainer


@attrs.frozen(kw_only=True)
class RunFacts:
    """What is known of a run before it begins.

    Args:
        steps: How many steps it will have in all.
        in_bits: Whether the training loss is one of predicted bytes, in nats.
        provenance: What `helix_train.provenance.provenance` returned.
        n_parameters: Parameters of the model.
        tokens_per_step: Tokens of a step, over all ranks.
        wall_time: Seconds that it took before it was resumed.
        flops_per_step: Floating-point operations of a step on this rank; None where nobody counted.
        peak: The most operations a second that the device was seen to do.
    """

    steps: int
    in_bits: bool
    provenance: Mapping[str, Any]
    n_parameters: int
    tokens_per_step: int
    wall_time: float = 0.0
    flops_per_step: int | None = None
    peak: float | None = None

    @classmethod
    def of(cls, trainer: Trainer, precision: Precision, provenance: Mapping[str, Any]) -> RunFacts:
        """Return what is known of a trainer's run; its speed is measured where it can and shall be."""
        options = trainer.options
        measures = options.measure_speed and trainer.step < trainer.steps and not options.compile
        return cls(
            steps=trainer.steps,
            in_bits=counts_bits(trainer.config["loss"], trainer.dataset),
            provenance=provenance,
            n_parameters=sum(parameter.numel() for parameter in trainer.model.parameters()),
            tokens_per_step=trainer.tokens_per_step,
            wall_time=trainer.start.attributes.get("wall_time", 0.0) if trainer.start else 0.0,
            flops_per_step=trainer.count_flops() if measures else None,
            peak=peak_flops(trainer.ranks.device, precision.dtype) if measures else None,
        )


class Reporter:
    """Tells of a run, on the one rank that does.

    Args:
        progress: Shows it to whoever watches.
        loggers: Take its metrics on, besides its own files.

    Attributes:
        samples: What the model wrote at the end, for the report.
    """

    def __init__(self, progress: Progress, loggers: tuple[Any, ...]) -> None:
        self._progress = progress
        self._loggers = Loggers(loggers, progress.note)
        self._run_file: RunFile | None = None
        self._files = ExitStack()
        self.samples: Sequence[str] = ()

    def open(self, run: RunInfo, facts: RunFacts) -> None:
        """Open the run's files, and forget what they hold of steps after the one it goes on from.

        Args:
            run: The run.
            facts: What is known of it before it begins.
        """
        speed = Speed(flops_per_step=facts.flops_per_step, peak=facts.peak)
        self._out = run.out
        self._run_file = RunFile.begin(
            run.out,
            step=run.step,
            steps=facts.steps,
            provenance=facts.provenance,
            n_parameters=facts.n_parameters,
            flops_per_step=facts.flops_per_step,
            tokens_per_step=facts.tokens_per_step,
            wall_time=facts.wall_time,
        )
        recorder = Recorder(run.out, step=run.step, in_bits=facts.in_bits, speed=speed)
        self._recorder = self._files.enter_context(closing(recorder))
        self._loggers.begin(run)
        self._progress.begin(step=run.step, steps=facts.steps)

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
        speed = {name: getattr(update, name) for name in ("tokens_per_second", "data_wait", "mfu")}
        self._loggers.log(report.step, _known({**report.values(update.bits_per_byte), **speed}))
        self._update_file(step=report.step)

    def validation(self, step: int, evaluation: Evaluation) -> None:
        """Tell of a validation."""
        self._recorder.validation(step=step, evaluation=evaluation)
        self._progress.evaluated(step, f"{evaluation} held out")
        self._loggers.log(step, _known(evaluation.values()))
        self._update_file(step=step, evaluation=evaluation)

    def validating(self, done: int, total: int | None) -> None:
        """Tell how far a validation is; see `Progress.validating`."""
        self._progress.validating(done, total)

    def saved(self, step: int, checkpoint: object) -> None:
        """Tell of a checkpoint."""
        self._update_file(step=step, checkpoint=checkpoint)

    def drop_after(self, step: int) -> None:
        """Forget the steps after one, to which the run has gone back."""
        self._recorder.drop_after(step)
        self._loggers.drop_after(step)

    def paused(self) -> AbstractContextManager[object]:
        """Do not count the time of the block as training."""
        return self._recorder.paused()

    def draw(self, path: Path) -> Path | None:
        """Draw the loss curve, or return None where the library for it is missing."""
        plot = draw_loss_curve(read_records(self._recorder.metrics), path)
        if plot is None:
            self.note("report.html shows the loss curve; for loss.png too: pip install 'helix-train[plot]'")
        return plot

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: TracebackType | None) -> None:
        if isinstance(error, InterruptedRunError | KeyboardInterrupt | SystemExit):
            self.close("interrupted")
        else:
            self.close("failed" if error else "done", error=str(error) if error else None)

    def close(self, status: Status, *, error: str | None = None) -> None:
        """Close the files, write the report, tell the loggers, and leave the terminal as it was found."""
        self._progress.close()
        if self._run_file is None:
            return
        end_file = partial(self._run_file.end, status, error=error, samples=self.samples)
        for end in (self._files.close, end_file, partial(write_report, self._out)):
            try:
                end()
            except Exception as failure:  # noqa: BLE001 - how the run itself ended is what counts
                self.note(f"not all files of the run are whole: {type(failure).__name__}: {failure}")
        self._loggers.finish(status)

    def _update_file(self, *, step: int, **news: Any) -> None:
        if self._run_file is not None:
            self._run_file.update(step=step, **news)


class Measured:
    """The modules of a model that measure something of themselves, such as the use of a codebook.

    Args:
        model: Is looked through once, here, and keeps these modules from then on.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        found = model.named_modules()
        self._modules: dict[str, Any] = {
            path: module for path, module in found if hasattr(type(module), "measurements")
        }

    def values(self) -> dict[str, float]:
        """Return what they measure now, each by the path of its module."""
        return {
            f"{path}.{name}" if path else name: float(value)
            for path, module in self._modules.items()
            for name, value in module.measurements().items()
        }


def run_info(trainer: Trainer, facts: RunFacts) -> RunInfo:
    """Return what loggers are told of a trainer's run."""
    return RunInfo(
        out=trainer.out,
        name=trainer.out.name,
        config=trainer.config.to_dict(),
        environment=facts.provenance["environment"],
        step=trainer.step,
    )


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
