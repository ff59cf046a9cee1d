"""What a run came to, for whoever started it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from pathlib import Path

    from helix_kernel.checkpoint.location import Place
    from helix_train.evaluation import Evaluation


@attrs.frozen(kw_only=True)
class Result:
    """What a run came to.

    Args:
        step: Steps done.
        evaluation: The model on the held-out part; None where nothing is held out.
        checkpoint: The last checkpoint.
        metrics: The file of metrics.
        report: The report, which has the curves too.
        plot: The loss curve as a picture, or None where the library that draws it is missing.
    """

    step: int
    evaluation: Evaluation | None
    checkpoint: Place
    metrics: Path
    report: Path
    plot: Path | None
