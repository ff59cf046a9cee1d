"""What a callback is: the moments of a run that it hears of, and what it may decide there."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

    from helix_train.config import TrainerConfig
    from helix_train.evaluation import Evaluation
    from helix_train.ranks import Ranks


class Verdict(IntEnum):
    """What becomes of a step's gradients; of several verdicts, of callbacks or ranks, the highest counts.

    ``PROCEED``: the optimizer takes the step. ``SKIP``: the gradients are thrown away, and the run goes on
    with the next batch. ``ROLL_BACK``: the run goes back to its last checkpoint and on from there with
    other random numbers and another order of data.
    """

    PROCEED = 0
    SKIP = 1
    ROLL_BACK = 2


@attrs.frozen(kw_only=True)
class Gradients:
    """What is known of a step before the optimizer takes it.

    Args:
        step: Number of the step, from 0.
        loss: Mean loss of the step's batches, over all ranks.
        norm: Norm of the gradient before it is clipped.
        rate: Learning rate of the first parameter group.
    """

    step: int
    loss: float
    norm: float
    rate: float


class Run(Protocol):
    """What a callback sees of the run, and may ask of it."""

    options: TrainerConfig
    ranks: Ranks
    model: Any
    optimizer: torch.optim.Optimizer
    step: int
    steps: int
    seed: int
    out: Path

    def note(self, text: str) -> None:
        """Show a line to whoever watches."""

    def event(self, name: str, text: str) -> None:
        """Write down, in ``events.jsonl``, that something out of the ordinary happened, and show it."""

    def log(self, values: Mapping[str, float]) -> None:
        """Add values to the next line of metrics."""

    def stop(self, reason: str) -> None:
        """End the run after this step as if it were the last, with a checkpoint.

        Every rank must ask for it at the same step.
        """

    def set_base_rate(self, rate: float) -> None:
        """Let the schedule multiply this learning rate instead of the optimizer's, in every group."""

    def try_loss(self, ahead: int = 0) -> float:
        """Return the loss of the batches of a step to come, with its gradients added to the parameters'.

        Args:
            ahead: Which step, counted from the next one. Nothing is counted: the batches train their step
                all the same.
        """


class Callback:
    """A callback that does nothing: the base of all others.

    On several ranks each has its own, and all hear the same in the same order.
    """

    name: ClassVar[str] = "callback"

    def begin(self, run: Run) -> None:
        """Hear that training begins, or goes on, after everything was built and restored."""

    def judge(self, run: Run, gradients: Gradients) -> Verdict:  # noqa: ARG002 - the base has no opinion
        """Say what becomes of the gradients; what overflows by the scale of fp16 alone is skipped unasked."""
        return Verdict.PROCEED

    def stepped(self, run: Run) -> None:
        """Hear that the optimizer has taken a step; ``run.step`` counts it."""

    def validated(self, run: Run, evaluation: Evaluation) -> None:
        """Hear how the model does on what is held out; where a run resumes at its end, once more."""

    def rolled_back(self, run: Run) -> None:
        """Hear that the run went back to a checkpoint, whose state this callback has been given again."""

    def end(self, run: Run) -> None:
        """Hear that the run is over; not after an error."""

    def averaged(self) -> Mapping[str, torch.Tensor] | None:
        """Return weights by name that are to be evaluated and served instead of the trained ones, or None."""
        return None

    def load_averaged(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Put back what `averaged` returned when the checkpoint was written."""

    def state_dict(self) -> dict[str, Any]:
        """Return what the callback must remember to go on as if the run had never stopped."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` returned."""
