"""What a logger is: where a run's metrics go, besides the files that every run writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

Status = Literal["done", "failed", "interrupted"]


@attrs.frozen(kw_only=True)
class RunInfo:
    """What a logger is told of the run that begins.

    Args:
        out: The run's directory.
        name: What the run is called.
        config: The whole config, every default filled in.
        environment: Versions, device and threads.
        step: Steps done before. Above 0 the run resumes there: what was logged of later steps does not count
            any more.
    """

    out: Path
    name: str
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    step: int = 0


class Logger(Protocol):
    """Takes a run's metrics on. Of several ranks, only rank 0 logs.

    One that can take points back has the method of `TakesBack` besides; one that can read what it wrote, that
    of `ReadsBack`; one that needs a service, the attribute of `NeedsService`.
    """

    def begin(self, run: RunInfo) -> None:
        """Hear that a run begins, or goes on.

        Raises:
            InputError: The logger's options, or what it needs, are wrong.
        """

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take values on.

        Args:
            step: Steps done. One may come more than once, with other values; one that is less than the last
                means that the run went back there, and what was logged from it on does not count any more.
            values: By name; they need not be finite.
        """

    def finish(self, status: Status) -> None:
        """Hear how the run ended; nothing follows."""


@runtime_checkable
class TakesBack(Protocol):
    """What a logger may have besides: it hears at once when a run goes back, were it to log nothing more."""

    def drop_after(self, step: int) -> None:
        """Forget what was logged of the steps after one, to which the run has gone back."""


@runtime_checkable
class ReadsBack(Protocol):
    """What a logger may have besides: it reads what it wrote, so that its conformance suite sees more."""

    def read_back(self, run: RunInfo) -> Mapping[str, Sequence[tuple[int, float]]]:
        """Return the points (step, value) of each metric that count, in the order of the steps.

        Args:
            run: As `begin` had it; asked of a logger that has not begun.
        """


@runtime_checkable
class NeedsService(Protocol):
    """What a logger has besides that works with a service, such as a server, which tests have not at hand.

    Attributes:
        stand_in: ``"package.module:function"``: given a folder, it returns a context manager within which the
            logger works without the service. Its conformance suite imports it, and nothing else does.
    """

    stand_in: ClassVar[str]
