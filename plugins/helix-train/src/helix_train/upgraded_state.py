"""Gives what an older version of a model's components saved of a run the names and shapes of now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helix_kernel.checkpoint import Checkpoint
from helix_kernel.nesting import flatten, nest
from helix_kernel.upgrades import upgraded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from helix_kernel.checkpoint.location import Place

    Tensors = dict[str, Any]
    Upgrade = Callable[[Mapping[str, Any]], Tensors]


def upgraded_state(
    state: Mapping[str | int, Any], model: torch.nn.Module, checkpoint: Place
) -> dict[str | int, Any]:
    """Return a run's state with weights, their average and the optimizer's moments as components name them.

    Args:
        state: What `helix_train.saving.Learner.state` returned.
        model: Takes the weights on.
        checkpoint: Tells the versions of the components that saved the state.

    Raises:
        IncompatibleCheckpointError: An upgrade failed.
    """
    with Checkpoint.open(checkpoint) as opened:
        saved = opened.attributes.get("components", {})

    def upgrade(tensors: Mapping[str, Any]) -> Tensors:
        return upgraded(model, tensors, saved)

    weights = flatten(state["model"])
    changed = {**state, "optimizer": _optimizer(state["optimizer"], weights, upgrade)}
    for part in {"model", "averaged"} & state.keys():
        changed[part] = nest(upgrade(flatten(state[part])))
    return changed


def _optimizer(state: Mapping[str, Any], weights: Tensors, upgrade: Upgrade) -> dict[str, Any]:
    """Upgrade each slot as if it were of the weights; groups hold names alone."""
    slots = {slot: nest(upgrade(flatten(values))) for slot, values in state["state"].items()}
    groups = [
        {**group, "params": list(upgrade({name: weights[name] for name in group["params"]}))}
        for group in state["param_groups"]
    ]
    return {"state": slots, "param_groups": groups}
