"""Every error that crosses a public boundary of Helix, and the words that suggest a mend."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class HelixError(Exception):
    """Base of all Helix errors. `exit_code` is what the `helix` command ends with."""

    exit_code = 1


class InputError(HelixError):
    """What the user gave is wrong: a file, a name, a value."""

    exit_code = 2


class ArgumentError(InputError, ValueError):
    """An argument of a public function or layer is wrong: its value, shape or dtype."""


class DataError(InputError):
    """A dataset's source is missing, empty or unreadable."""


class UnknownNameError(InputError):
    """No component, kind or command of that name is installed."""


class AmbiguousNameError(InputError):
    """Several providers offer a component of that name."""


class DependencyError(InputError):
    """A component's target, or a package that it requires, cannot be imported."""


class LockError(InputError):
    """What is installed, or the config, is not what a lock records."""


class CheckpointError(InputError):
    """A checkpoint is missing, incomplete or damaged."""


class IncompatibleCheckpointError(CheckpointError):
    """A checkpoint is whole but belongs to another architecture, provider or version."""


class UnschedulableError(InputError):
    """No schedule can meet what tasks ask of devices."""


class Problem:
    """One thing wrong in a config: where, and what to do about it.

    Args:
        path: Dotted path of the value, such as ``model.mixer.d_state``.
        message: What is wrong, what was given and what is allowed.
    """

    __slots__ = ("message", "path")

    def __init__(self, path: str, message: str) -> None:
        self.path = path
        self.message = message

    def __repr__(self) -> str:
        return f"Problem({self.path!r}, {self.message!r})"

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class ConfigError(InputError):
    """Everything that is wrong with a config, found in one pass."""

    def __init__(self, problems: Sequence[Problem], source: str = "") -> None:
        self.problems = tuple(problems)
        self.source = source
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        head = f"{source}: {count}" if source else count
        super().__init__("\n".join([head, *(f"  {problem}" for problem in self.problems)]))


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that `name` most resembles, or None where none is close."""
    from difflib import get_close_matches

    names = list(known)
    folded = {candidate.replace("_", "-").lower(): candidate for candidate in reversed(names)}
    matches = get_close_matches(name.replace("_", "-").lower(), folded, n=1, cutoff=0.6)
    return folded[matches[0]] if matches else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the nearest known name, or nothing."""
    match = nearest(name, known)
    return f" Did you mean {match!r}?" if match else ""
