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
        plot: The loss curve, or None where it could not be drawn.
    """

    step: int
    evaluation: Evaluation | None
    checkpoint: Place
    metrics: Path
    plot: Path | None
