"""All loggers of a run as one, which no failing logger can stop."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from helix_kernel.errors import HelixError, InputError
from helix_train.loggers.base import TakesBack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from helix_train.loggers.base import Logger, RunInfo, Status

_REST = 60.0
_REST_FACTOR = 10.0


class Loggers:
    """Hands a run's metrics to each of its loggers.

    A logger that cannot begin is an error, since nothing is lost yet; but not where the run resumes and the
    logger's options are right, as when a network is down. In mid-run a failing logger costs one line. It is
    then left alone for a minute, or ten times as long as its failure took, so that a network that hangs takes
    a tenth of the run's time at the most; after that it is tried again.

    Args:
        loggers: In the order of the config.
        note: Shows a line to whoever watches.
    """

    def __init__(self, loggers: Sequence[Logger], note: Callable[[str], None]) -> None:
        self._guards = [
            _Guard(f"trainer.loggers[{index}] ({type(logger).__name__})", logger, note)
            for index, logger in enumerate(loggers)
        ]
        self._begun: list[_Guard] = []

    def begin(self, run: RunInfo) -> None:
        """Tell each logger that the run begins.

        Raises:
            HelixError: A logger cannot begin; those before it are finished.
        """
        for guard in self._guards:
            try:
                if guard.begin(run):
                    self._begun.append(guard)
            except BaseException:
                self.finish("failed")
                raise

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Hand values to each logger, those that are resting left out."""
        for guard in self._begun:
            guard.log(step, values)

    def drop_after(self, step: int) -> None:
        """Tell each logger that can take points back that the run has gone back to a step."""
        for guard in self._begun:
            guard.drop_after(step)

    def finish(self, status: Status) -> None:
        """Tell each logger how the run ended."""
        for guard in self._begun:
            guard.finish(status)
        self._begun = []


class _Guard:
    """A logger whose failures become lines for whoever watches."""

    def __init__(self, name: str, logger: Logger, note: Callable[[str], None]) -> None:
        self._name = name
        self._logger = logger
        self._note = note
        self._tried_again = 0.0
        self._failed_at: int | None = None

    def begin(self, run: RunInfo) -> bool:
        """Begin, and return whether it could."""
        try:
            self._logger.begin(run)
        except InputError as error:
            error.add_note(f"while beginning {self._name}")
            raise
        except Exception as error:
            if run.step == 0:
                raise HelixError(
                    f"{self._name} could not begin: {_told(error)}; mend this, or leave the logger out"
                ) from error
            self._note(f"{self._name} could not begin, and is left out: {_told(error)}")
            return False
        return True

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log, unless it failed a short while ago."""
        self._try(step, partial(self._logger.log, step, values))

    def drop_after(self, step: int) -> None:
        """Forget the steps after one, unless it failed a short while ago or cannot."""
        if isinstance(self._logger, TakesBack):
            self._try(step, partial(self._logger.drop_after, step))

    def finish(self, status: Status) -> None:
        """Finish, whatever comes of it."""
        try:
            self._logger.finish(status)
        except Exception as error:  # noqa: BLE001 - no logger may end a run
            self._note(f"{self._name} could not finish: {_told(error)}; metrics.jsonl has everything")

    def _try(self, step: int, act: Callable[[], None]) -> None:
        begun = time.monotonic()
        if self._failed_at is not None and begun < self._tried_again:
            return
        try:
            act()
        except Exception as error:  # noqa: BLE001 - no logger may end a run
            self._rest(step, error, begun)
        else:
            self._recover(step)

    def _rest(self, step: int, error: Exception, begun: float) -> None:
        now = time.monotonic()
        self._tried_again = now + max(_REST, _REST_FACTOR * (now - begun))
        if self._failed_at is None:
            self._failed_at = step
            what = f"{self._name} failed at step {step}: {_told(error)}"
            self._note(f"{what}; the run goes on, and metrics.jsonl has everything")

    def _recover(self, step: int) -> None:
        if self._failed_at is not None:
            self._note(f"{self._name} logs again from step {step}; it lacks steps from {self._failed_at} on")
            self._failed_at = None


def _told(error: Exception) -> str:
    """Return an error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
