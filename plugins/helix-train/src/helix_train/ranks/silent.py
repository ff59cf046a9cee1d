"""The reporter of ranks that have nothing to tell: the first rank tells it all."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from helix_train.reporting import Reporter

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from helix_train.evaluation import Evaluation
    from helix_train.loggers.base import RunInfo, Status
    from helix_train.records import StepReport
    from helix_train.reporting import RunFacts


class SilentReporter(Reporter):
    """Shows nothing, writes nothing, and tells no logger; see `Reporter` for each method."""

    def __init__(self) -> None:
        self.samples = ()

    def open(self, run: RunInfo, facts: RunFacts) -> None:
        """Open nothing."""

    def note(self, text: str) -> None:
        """Show nothing."""

    def event(self, step: int, name: str, text: str) -> None:
        """Write nothing."""

    def training(self, report: StepReport) -> None:
        """Tell nothing."""

    def validation(self, step: int, evaluation: Evaluation) -> None:
        """Tell nothing."""

    def validating(self, done: int, total: int | None) -> None:
        """Show nothing."""

    def saved(self, step: int, checkpoint: object) -> None:
        """Tell nothing."""

    def drop_after(self, step: int) -> None:
        """Forget nothing."""

    def paused(self) -> AbstractContextManager[object]:
        """Count no time."""
        return nullcontext()

    def draw(self, path: Path) -> Path | None:
        """Draw nothing; rank 0 does."""
        return path

    def close(self, status: Status, *, error: str | None = None) -> None:
        """Close nothing."""
