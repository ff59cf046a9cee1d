"""Whether tensors are those of a model, told without building one in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from helix_kernel.errors import IncompatibleCheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from helix_kernel import Kernel
    from helix_kernel.config import Resolved

Shapes = dict[str, tuple[int, ...]]


def shapes_of(model: Resolved, kernel: Kernel) -> Shapes:
    """Return the shape of each of a model's parameters by name; none is allocated."""
    with torch.device("meta"):
        built = kernel.build("layer", model)
    return {name: tuple(tensor.shape) for name, tensor in built.state_dict().items()}


def check_fit(found: Mapping[str, tuple[int, ...]], expected: Shapes, source: str) -> None:
    """Compare the tensors that there are with those that a model has.

    Args:
        found: The shape of each tensor by name.
        expected: The same for the model.
        source: Where they come from, for the message.

    Raises:
        IncompatibleCheckpointError: Names those that are missing, left over or of another shape.
    """
    wrong = [f"missing: {name} {expected[name]}" for name in expected if name not in found]
    wrong += [f"left over: {name} {found[name]}" for name in found if name not in expected]
    wrong += [
        f"{name}: {found[name]} in the weights, {expected[name]} by the config"
        for name in expected
        if name in found and found[name] != expected[name]
    ]
    if wrong:
        shown = [*wrong[:8], *([f"and {len(wrong) - 8} more"] if len(wrong) > 8 else [])]
        head = f"{source} holds the weights of another model than its config's:"
        raise IncompatibleCheckpointError("\n  ".join([head, *shown]))
