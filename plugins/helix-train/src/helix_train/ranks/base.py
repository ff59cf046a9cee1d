"""A run of one process, and what a run of several must do in its place."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel.checkpoint import CheckpointManager
from helix_train.callbacks.base import Verdict
from helix_train.reporting import Reporter

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    import torch

    from helix_kernel.checkpoint import Retention
    from helix_train.progress import Progress


@attrs.frozen(kw_only=True)
class Standing:
    """What a step came to, as one rank sees it or as all have agreed.

    Args:
        loss: Mean loss of the step's batches.
        verdict: What becomes of the gradients.
        signum: The signal that asks the run to end; 0 for none.
        stopping: Whether a callback ends the run.
    """

    loss: float
    verdict: Verdict = Verdict.PROCEED
    signum: int = 0
    stopping: bool = False


class Ranks:
    """One process that trains alone.

    Args:
        device: What it trains on.
    """

    rank = 0
    world_size = 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that shows progress and writes what is written once."""
        return self.rank == 0

    def prepare(self, model: torch.nn.Module) -> torch.nn.Module:
        """Return what is run forward to train `model`, whose parameters it may shard where they stand."""
        return model

    def accumulating(self, *, last: bool) -> AbstractContextManager[object]:  # noqa: ARG002 - for several ranks
        """Return the context of a micro-batch's pass; only that of the last need join gradients."""
        return nullcontext()

    def agree(self, own: Standing) -> Standing:
        """Return what all ranks' standings come to: the mean loss, and the strongest of the rest."""
        return own

    def manager(self, directory: Path, *, keep: Retention, **options: Any) -> Any:
        """Return what saves the run's checkpoints; see `CheckpointManager`."""
        return CheckpointManager(directory, keep=keep, **options)

    def reporter(self, progress: Progress, loggers: tuple[Any, ...]) -> Reporter:
        """Return what tells of the run."""
        return Reporter(progress, loggers)

    def close(self) -> None:
        """Leave the others."""
