"""Lets a run begin with the weights of another checkpoint, such as an imported model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helix_kernel.restore import load_weights, open_run
from helix_train.resume import changes

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


def load_initial_weights(
    model: torch.nn.Module, checkpoint: str, config: Mapping[str, Any], *, accept_versions: bool = False
) -> tuple[str, ...]:
    """Load the weights of a checkpoint, averaged where it has an average, and nothing else into a model.

    Args:
        model: Takes on the weights, in its own dtype.
        checkpoint: A checkpoint, or the directory of a run, whose newest good one it is then.
        config: The model's section of the config.
        accept_versions: See `helix_kernel.restore.open_run`.

    Returns:
        A line that names the checkpoint, and one for each option that its model differs in: weights that
        fit may still mean something else there.

    Raises:
        CheckpointError: The checkpoint is missing or damaged.
        IncompatibleCheckpointError: It is of another architecture; weights that are missing, left over or
            of another shape are named. Or its components are missing or of another version.
    """
    run = open_run(checkpoint, sections=["model"], accept_versions=accept_versions)
    load_weights(model, run.weights(model), f"trainer.initial_weights: {run.path}")
    theirs = run.config(["model"]).to_dict()["model"]
    return (f"beginning with the weights of {run.path}", *changes({"model": theirs}, {"model": config}))
