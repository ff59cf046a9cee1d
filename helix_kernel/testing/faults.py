"""Shows that a conformance suite finds a fault: for the tests of those who write suites."""

from __future__ import annotations

import inspect
import itertools
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from helix_kernel.testing.suite import Suite


def caught_by(suite: type[Suite], case: str, says: str, *, right: type[Suite], tmp_path: Path) -> None:
    """Check that a case passes what is right, and fails on a fault with a message that says which.

    It runs the case, in all its parametrizations, as pytest would. A case may ask for the fixture `tmp_path`
    and no other.

    Args:
        suite: The suite's subclass that makes what has the fault.
        case: Name of the case that is meant for it.
        says: What one of its messages must hold, a regular expression in which a dot is any character.
        right: The suite's subclass that makes the same without the fault.
        tmp_path: Each run gets a folder of its own in it.

    Raises:
        AssertionError: The fault passes, or no message says what is expected.
        Exception: What is right fails.
    """
    for number, values in enumerate(_parametrizations(right, case)):
        _run(right, case, values, tmp_path / f"right{number}")
    messages = []
    for number, values in enumerate(_parametrizations(suite, case)):
        try:
            _run(suite, case, values, tmp_path / f"wrong{number}")
        except Exception as error:  # noqa: BLE001 - whatever it is, pytest would show it
            messages.append(str(error))
    assert messages, f"{case} does not find the fault"
    told = "\n".join(messages)
    assert any(re.search(says, message, re.DOTALL) for message in messages), f"not {says!r} but:\n{told}"


def _run(suite: type[Suite], case: str, values: Mapping[str, Any], folder: Path) -> None:
    method = getattr(suite(), case)
    given = dict(values)
    if "tmp_path" in inspect.signature(method).parameters:
        folder.mkdir()
        given["tmp_path"] = folder
    method(**given)


def _parametrizations(suite: type[Suite], case: str) -> Iterator[dict[str, Any]]:
    """Yield the arguments of every parametrization of a case."""
    marks = [mark for mark in getattr(getattr(suite, case), "pytestmark", ()) if mark.name == "parametrize"]
    axes = [[(mark.args[0], value) for value in mark.args[1]] for mark in marks]
    return (dict(choice) for choice in itertools.product(*axes))
