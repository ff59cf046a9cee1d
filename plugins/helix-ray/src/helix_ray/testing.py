"""A stand-in for the Ray Tune trial that the logger needs, for the conformance suite of loggers."""

from __future__ import annotations

import json
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


@contextmanager
def trial(folder: Path) -> Iterator[None]:
    """Let a logger take this process for a trial of Ray Tune; each report is a line of ``reports.jsonl``.

    No cluster is started. A report that a trial could not send on, since it is no JSON, is an error.
    """
    from ray import tune

    def report(metrics: Mapping[str, Any]) -> None:
        with (folder / "reports.jsonl").open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(metrics) + "\n")

    context = SimpleNamespace(get_trial_id=lambda: "trial_00000")
    with (
        mock.patch.object(tune, "get_context", return_value=context),
        mock.patch.object(tune, "report", report),
    ):
        yield
