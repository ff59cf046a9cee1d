"""Tells how large a run's checkpoints are, also before the state that they will hold is there."""

from __future__ import annotations

from collections import defaultdict
from copy import copy
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_leaves

from helix_train.state import kept_rngs

if TYPE_CHECKING:
    from collections.abc import Mapping


def checkpoint_size(
    state: Mapping[str | int, Any], model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> int:
    """Return the bytes of a checkpoint after the next step.

    Args:
        state: What one would hold now. Of a run that begins it lacks the optimizer's moments, which the first
            step makes, and the weights of a callback that keeps an average and has not begun.
        model: Whose weights they are.
        optimizer: Whose moments they are.
    """
    size = _bytes_of(state)
    if state.get("averaged") == {}:
        size += sum(tensor.nbytes for tensor in model.state_dict().values() if tensor.is_floating_point())
    return size if optimizer.state else size + moments_size(optimizer)


def moments_size(optimizer: torch.optim.Optimizer) -> int:
    """Return the bytes that an optimizer keeps after a step, as one on tensors without memory tells.

    An optimizer that takes no such step, as one of somebody else's kernels may not, counts as 0.
    """
    shadow = copy(optimizer)
    shadow.state = defaultdict(dict)
    shadow.param_groups = [
        {**group, "params": [_without_memory(parameter) for parameter in group["params"]]}
        for group in optimizer.param_groups
    ]
    try:
        with kept_rngs():
            shadow.step()
    except Exception:  # noqa: BLE001 - whatever another's optimizer raises here, the run may go well
        return 0
    return _bytes_of(dict(shadow.state))


def _without_memory(parameter: torch.Tensor) -> torch.nn.Parameter:
    like = torch.nn.Parameter(torch.empty_like(parameter, device="meta"))
    like.__dict__.update(parameter.__dict__)  # marks by which an optimizer knows tables
    like.grad = torch.empty_like(like)
    return like


def _bytes_of(state: Any) -> int:
    """Return the bytes of all tensors and arrays; one that stands twice counts once."""
    leaves = {id(leaf): leaf.nbytes for leaf in tree_leaves(state) if hasattr(leaf, "nbytes")}
    return sum(leaves.values())
