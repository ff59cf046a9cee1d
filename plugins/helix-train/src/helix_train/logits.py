"""Trains a model whose logits would not fit: they are made, and differentiated, some positions at a time.

A vocabulary of V ids costs V numbers a position, three times over: logits, their gradient, and a copy in
float32. The features below them cost D. Wijmans et al. 2024, "Cut Your Losses in Large-Vocabulary Language
Models", arXiv:2411.09009, section 2, says how much of training's memory that is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from helix_kernel.errors import ArgumentError
from helix_train.objective import Examples, Losses, add_up, predict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from helix_train.objective import Objective


def backward_by_positions(
    objective: Objective, examples: Examples, *, n_positions: int, weight: float = 1.0
) -> Losses:
    """Add the gradients of the loss to those of the parameters, holding the logits of some positions.

    The gradients are those of all logits at once, but for the order of sums, at no other cost: each part's
    backward pass ends at the features, whose gradient then goes through the model once.

    Args:
        objective: Its model has features and logits; see `check_has_features`; its `forward` gives the
            features (B, L, D). Its loss is a mean or, where its ``reduction`` is ``"sum"``, a sum over the
            targets that the mask keeps.
        examples: Inputs and targets (B, L), and masks (B, L) or none.
        n_positions: Positions of the whole batch whose logits are held at a time, at least 1.
        weight: Factor of the loss.

    Returns:
        The weighted losses of the whole.

    Raises:
        ArgumentError: The targets are not one for each position.
    """
    _check(examples)
    with objective.precision():
        features = predict(objective.forward, examples)
    cut = features.detach().requires_grad_()
    auxiliary = objective.auxiliary()
    task = add_up(_backward_parts(objective, cut, examples, n_positions, weight)).task
    roots: list[tuple[Tensor, Tensor | None]] = [(features, cut.grad)]
    if auxiliary is not None:
        roots.append((auxiliary * weight, None))
    outputs, gradients = zip(*roots, strict=True)
    torch.autograd.backward(outputs, gradients)
    return Losses(task=task, auxiliary=None if auxiliary is None else (auxiliary * weight).detach())


def check_has_features(model: Any) -> None:
    """Raise `ArgumentError` unless the model tells its features from the logits made of them.

    It has ``features``, called as the model is, and ``logits``, which maps features (1, n, D) of n
    positions to (1, n, V), each by itself. A model with a memory that has a say in what comes next has no
    such logits.
    """
    if getattr(model, "memory", None) is not None:
        raise ArgumentError(
            f"{type(model).__name__} has a memory, whose say is not in logits that are made in parts; "
            "set trainer.logits_chunk=0, or leave out model.memory"
        )
    missing = [name for name in ("features", "logits") if not hasattr(model, name)]
    if missing:
        raise ArgumentError(
            f"{type(model).__name__} has no {missing[0]}(), so its logits cannot be made in parts; "
            "set trainer.logits_chunk=0"
        )


def _backward_parts(
    objective: Objective, features: Tensor, examples: Examples, n_positions: int, weight: float
) -> Iterator[Losses]:
    """Differentiate the parts one after another, and yield each one's share of the loss."""
    sums = getattr(objective.loss, "reduction", "mean") == "sum"
    targets, mask = examples.targets.flatten(), None if examples.mask is None else examples.mask.flatten()
    n_kept = len(targets) if mask is None else mask.sum().clamp(min=1)
    flat = features.flatten(0, 1)
    for begin in range(0, len(targets), n_positions):
        part = slice(begin, begin + n_positions)
        kept = None if mask is None else mask[part]
        with objective.precision():
            logits = objective.model.logits(flat[None, part]).squeeze(0)
        loss = objective.measure_task(logits, targets[part], kept)
        share = 1.0 if sums else (len(targets[part]) if kept is None else kept.sum()) / n_kept
        loss = loss * (share * weight)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own stub lacks its types
        yield Losses(task=loss.detach())


def _check(examples: Examples) -> None:
    shape = examples.inputs.shape
    if examples.targets.shape != shape:
        raise ArgumentError(
            f"targets have shape {tuple(examples.targets.shape)} and inputs {tuple(shape)}; to make logits "
            "in parts (trainer.logits_chunk) both need (B, L): one target for each position"
        )
