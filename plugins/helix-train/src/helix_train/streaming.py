"""Trains on sequences longer than memory: chunk by chunk, with the model's state carried between them."""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from helix_kernel.errors import ArgumentError, did_you_mean
from helix_train.config import Gradient
from helix_train.objective import Examples, Losses, add_up
from helix_train.state import load_rng_state, rng_state

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from helix_train.objective import Objective


class Chunk(NamedTuple):
    """Part of a batch's time axis.

    Attributes:
        examples: Its inputs, targets and mask.
        share: Weight of its loss in that of the whole.
    """

    examples: Examples
    share: float


def backward_in_chunks(
    objective: Objective, examples: Examples, *, chunk_len: int, gradient: Gradient, weight: float = 1.0
) -> Losses:
    """Add the gradients of the loss to those of the parameters, holding one chunk's activations at a time.

    The model's state goes from each chunk to the next, so that every token is predicted from everything
    before it. With ``"truncated"`` no gradient passes a border (Williams & Peng 1990, truncated
    backpropagation through time): a chunk costs what it costs alone. With ``"exact"`` the gradients are
    those of one forward pass over the whole sequence (Chen et al. 2016, arXiv:1604.06174): a first pass
    keeps the state at each border alone, then the chunks are run again from the last to the first, each
    with the same random numbers as before, and each hands the gradient of its first state to the chunk
    before it. This costs one more forward pass, and the states at the borders.

    A model's auxiliary loss is that of each chunk, weighted as the chunk's loss is.

    Args:
        objective: Its model streams; see `check_streams`. Its loss is a mean or, where its ``reduction``
            is ``"sum"``, a sum over the targets that the mask keeps.
        examples: Inputs and targets (B, L), and a mask (B, L) or none.
        chunk_len: Tokens in a chunk, at least 1; the last may have fewer.
        gradient: What passes backwards through the borders.
        weight: Factor of the loss.

    Returns:
        The weighted losses of the whole.

    Raises:
        ArgumentError: The model cannot stream, the targets have no time axis, or another argument does
            not fit.
    """
    check_streams(objective.model, instead="whole sequences (trainer.chunk_len=0)")
    _check(examples, chunk_len, gradient)
    sums = getattr(objective.loss, "reduction", "mean") == "sum"
    chunks = _chunks(examples, chunk_len, weight, sums=sums)
    run = _backward_exact if gradient == "exact" else _backward_truncated
    return add_up(run(objective, chunks))


def check_streams(model: Any, *, instead: str) -> None:
    """Raise `ArgumentError` unless the model carries a state: ``init_state`` and ``extend``.

    Args:
        model: What is to run in chunks.
        instead: What it can do without a state, for the message.
    """
    missing = [name for name in ("init_state", "extend") if not hasattr(model, name)]
    if missing:
        raise ArgumentError(
            f"{type(model).__name__} has no {missing[0]}(), so it carries no state from chunk to chunk; "
            f"use a causal model whose layers stream, or {instead}"
        )


def _backward_truncated(objective: Objective, chunks: Sequence[Chunk]) -> Iterator[Losses]:
    state = _first_state(objective.model, chunks[0])
    for chunk in chunks:
        losses, state = _run(objective, chunk, state)
        losses.total.backward()  # type: ignore[no-untyped-call]  # torch's own stub lacks its types
        state = tree_map(_without_graph, state)
        yield losses.detach()


def _backward_exact(objective: Objective, chunks: Sequence[Chunk]) -> Iterator[Losses]:
    starts = _starts(objective, chunks)
    gradients: list[Tensor | None] = []
    rng_at_end = None
    for chunk in reversed(chunks):
        rng, start = starts.pop()
        load_rng_state(rng)
        # The very first state belongs to the model, which may learn it.
        state = _first_state(objective.model, chunk) if start is None else tree_map(_as_variable, start)
        losses, end = _run(objective, chunk, state)
        rng_at_end = rng_at_end or rng_state()
        _backward(losses, end, gradients)
        gradients = [] if start is None else [getattr(leaf, "grad", None) for leaf in tree_leaves(state)]
        yield losses.detach()
    assert rng_at_end is not None
    load_rng_state(rng_at_end)


@torch.no_grad()
def _starts(objective: Objective, chunks: Sequence[Chunk]) -> list[tuple[Any, Any]]:
    """Return the random numbers' state and the model's before each chunk; None for the model's first."""
    starts = [(rng_state(), None)]
    state = _first_state(objective.model, chunks[0])
    for chunk in chunks[:-1]:
        with objective.precision():
            _, state = objective.model.extend(chunk.examples.inputs, state)
        state = tree_map(_compact, state)
        starts.append((rng_state(), state))
    return starts


def _run(objective: Objective, chunk: Chunk, state: Any) -> tuple[Losses, Any]:
    with objective.precision():
        prediction, end = objective.model.extend(chunk.examples.inputs, state)
    return objective.measure(prediction, chunk.examples).scaled(chunk.share), end


def _backward(losses: Losses, end: Any, gradients: Sequence[Tensor | None]) -> None:
    """Run backward from a chunk's loss and, with the gradients that the next chunk found, its last state."""
    roots: list[tuple[Tensor, Tensor | None]] = [(losses.total, None)]
    if gradients:  # the last chunk has none after it
        pairs = zip(tree_leaves(end), gradients, strict=True)
        roots += [(leaf, gradient) for leaf, gradient in pairs if gradient is not None and leaf.requires_grad]
    outputs, given = zip(*roots, strict=True)
    torch.autograd.backward(outputs, given)


def _first_state(model: Any, chunk: Chunk) -> Any:
    inputs = chunk.examples.inputs
    return model.init_state(len(inputs), device=inputs.device)


def _as_variable(leaf: Any) -> Any:
    """Return a leaf of a state as the start of a graph; positions and the like have no gradient."""
    if not isinstance(leaf, Tensor):
        return leaf
    differentiable = leaf.is_floating_point() or leaf.is_complex()
    return leaf.detach().requires_grad_(differentiable)


def _without_graph(leaf: Any) -> Any:
    return leaf.detach() if isinstance(leaf, Tensor) else leaf


def _compact(leaf: Any) -> Any:
    """Return a leaf of a state that keeps nothing else in memory, as a view of a chunk's outputs would."""
    if not isinstance(leaf, Tensor) or leaf.untyped_storage().nbytes() == leaf.nbytes:
        return leaf
    return leaf.clone()


def _chunks(examples: Examples, chunk_len: int, weight: float, *, sums: bool) -> list[Chunk]:
    mask = examples.mask
    parts = zip(
        torch.split(examples.inputs, chunk_len, dim=1),
        torch.split(examples.targets, chunk_len, dim=1),
        repeat(None) if mask is None else torch.split(mask, chunk_len, dim=1),
        strict=False,
    )
    pieces = [Examples(inputs=inputs, targets=targets, mask=kept) for inputs, targets, kept in parts]
    counts = _counts(pieces)
    total = max(1, sum(counts))
    return [
        Chunk(piece, weight if sums else weight * count / total)
        for piece, count in zip(pieces, counts, strict=True)
    ]


def _counts(pieces: Sequence[Examples]) -> list[int]:
    """Return how many targets of each piece count, looking at a device's memory once at most."""
    if pieces[0].mask is None:
        return [piece.targets.numel() for piece in pieces]
    counts: list[int] = torch.stack([piece.mask.sum() for piece in pieces if piece.mask is not None]).tolist()
    return counts


def _check(examples: Examples, chunk_len: int, gradient: str) -> None:
    known = get_args(Gradient)
    if gradient not in known:
        raise ArgumentError(
            f"trainer.gradient is {gradient!r}, allowed is one of {known}.{did_you_mean(gradient, known)}"
        )
    if chunk_len < 1:
        raise ArgumentError(f"trainer.chunk_len is {chunk_len}, allowed is >= 1 to stream")
    if examples.input_mask is not None:
        raise ArgumentError("padded batches (input_mask) cannot be cut in chunks; set trainer.chunk_len=0")
    shape = tuple(examples.inputs.shape)
    for name in ("targets", "mask"):
        own = getattr(examples, name)
        if own is not None and tuple(own.shape[:2]) != shape[:2]:
            raise ArgumentError(
                f"{name} have shape {tuple(own.shape)} and inputs {shape}; to stream in chunks "
                "(trainer.chunk_len) both need (B, L, …): one target for each input"
            )
