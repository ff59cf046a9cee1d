"""Measures a model on what its data hold out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import numpy as np
import torch
from torch.nn import functional as F

from helix_kernel.errors import ArgumentError
from helix_train.metrics.several import Metrics
from helix_train.objective import Examples, predict
from helix_train.streaming import check_streams

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray


T = TypeVar("T")


@attrs.frozen
class Evaluation:
    """The mean loss over what is held out: tokens, each a byte unless it says otherwise, or whole rows.

    Args:
        loss: Cross-entropy in nats per target.
        n_targets: How many targets were predicted.
        tokens_per_byte: Tokens of a byte of the held-out text, on average; None where targets are no text.
        accuracy: Share of rows whose class is the likeliest one; None where targets are tokens.
        metrics: What else was measured, by name.
    """

    loss: float
    n_targets: int
    tokens_per_byte: float | None = 1.0
    accuracy: float | None = None
    metrics: Mapping[str, float] = attrs.field(factory=dict)

    @property
    def bits_per_byte(self) -> float | None:
        """The loss in bits, of as many tokens as a byte of text has: comparable over any tokenizer."""
        return None if self.tokens_per_byte is None else self.loss / math.log(2) * self.tokens_per_byte

    @property
    def n_bytes(self) -> int | None:
        """How many bytes were predicted."""
        return None if self.tokens_per_byte is None else round(self.n_targets / self.tokens_per_byte)

    def values(self) -> dict[str, float | None]:
        """Return what was measured, by the names that it is recorded under."""
        return {
            "validation_loss": self.loss,
            "validation_bits_per_byte": self.bits_per_byte,
            "validation_accuracy": self.accuracy,
            **{f"validation_{name}": value for name, value in self.metrics.items()},
        }

    def __str__(self) -> str:
        """Return what a run is followed by: accuracy of classes, bits of bytes."""
        if self.accuracy is not None:
            return f"loss {self.loss:.4f}, accuracy {self.accuracy:.1%}"
        if self.bits_per_byte is not None:
            return f"{self.bits_per_byte:.4f} bits per byte"
        return f"loss {self.loss:.4f}"


Watch = Callable[[int, int | None], None]
"""Is told before each batch how many were measured, and of how many where that is known."""


def evaluate_dataset(
    model: torch.nn.Module,
    dataset: Any,
    *,
    chunk_len: int = 0,
    loss: Any = None,
    metrics: Metrics | None = None,
    watch: Watch | None = None,
) -> Evaluation | None:
    """Measure a model on what a dataset holds out.

    Args:
        model: From ids (B, L) int64 to logits (B, L, V). What its method ``measures(batches)`` makes of the
            held-out batches, numbers by name, is measured too.
        dataset: Has ``evaluation_batches()`` or else ``held_out()``, ``seq_len`` and ``batch_size``; and
            ``tokens_per_byte`` where its tokens are no bytes, None where they are no text.
        chunk_len: Read all in one pass, so many tokens at a time; 0: in windows of the dataset's.
        loss: Measures predictions whose targets are floating, and so no classes; see `evaluate_batches`.
        metrics: What to measure besides the loss.
        watch: Hears how far it is; what it raises ends the measuring.

    Returns:
        None where nothing is held out.

    Raises:
        ArgumentError: The model or the dataset cannot do it.
    """
    metrics = Metrics() if metrics is None else metrics
    metrics.begin(dataset)
    if not hasattr(dataset, "evaluation_batches"):
        found = _evaluate_text(model, dataset, chunk_len, metrics, watch)
    elif chunk_len:
        raise ArgumentError(
            f"--stream: {type(dataset).__name__} brings batches of its own to be measured on, which are no "
            "one text to read in a pass; leave --stream out"
        )
    else:
        found = evaluate_batches(model, dataset.evaluation_batches(), loss=loss, metrics=metrics, watch=watch)
    if found is None:
        return None
    tokens_per_byte = getattr(dataset, "tokens_per_byte", 1.0)
    measured = {**metrics.compute(), **_own_measures(model, dataset)}
    return attrs.evolve(found, tokens_per_byte=tokens_per_byte, metrics=measured)


def evaluate(
    model: torch.nn.Module,
    held_out: NDArray[np.integer],
    *,
    seq_len: int,
    batch_size: int,
    metrics: Metrics | None = None,
    watch: Watch | None = None,
) -> Evaluation:
    """Predict every held-out token but the first once, in overlapping windows.

    Each window after the first scores only its second half, so that a token is predicted from at
    least ``seq_len // 2`` tokens before it (fewer only at the very beginning).

    Args:
        model: From ids (B, L) int64 to logits (B, L, V).
        held_out: Tokens (n,), such as bytes in uint8, at least 2.
        seq_len: Length of a window.
        batch_size: Windows in one forward pass.
        metrics: Sees every prediction that is scored.
        watch: See `evaluate_dataset`.

    Raises:
        ArgumentError: A number is out of range, or there is no token to predict.
    """
    _check(len(held_out), seq_len=seq_len, batch_size=batch_size)
    total, count = 0.0, 0
    with _measuring(model) as device:
        batches = _batches(held_out, seq_len, batch_size)
        for ids, targets, scored in _watched(batches, watch, _n_batches(len(held_out), seq_len, batch_size)):
            logits = model(ids.to(device))
            losses = _losses(logits, targets)
            total += float(losses[scored].sum())
            count += int(scored.sum())
            if metrics is not None:
                metrics.update(logits, targets, mask=scored)
    return Evaluation(total / count, count)


def evaluate_stream(
    model: Any,
    held_out: NDArray[np.integer],
    *,
    chunk_len: int,
    metrics: Metrics | None = None,
    watch: Watch | None = None,
) -> Evaluation:
    """Predict every held-out token but the first from everything before it, in one pass.

    The model's state goes from chunk to chunk, so memory grows with neither the text nor, where the
    state does not, the context.

    Args:
        model: From ids (B, L) int64 to logits (B, L, V), with ``init_state`` and ``extend``.
        held_out: Tokens (n,), such as bytes in uint8, at least 2.
        chunk_len: Tokens read at a time; changes no result but for rounding.
        metrics: Sees every prediction.
        watch: See `evaluate_dataset`.

    Raises:
        ArgumentError: The model cannot stream, the number is out of range, or there is no token to
            predict.
    """
    check_streams(model, instead="windows (without --stream)")
    _check(len(held_out), chunk_len=chunk_len)
    n_targets = len(held_out) - 1
    total = 0.0
    with _measuring(model) as device:
        state = model.init_state(1, device=device)
        starts = range(0, n_targets, chunk_len)
        for start in _watched(starts, watch, len(starts)):
            chunk = held_out[start : min(start + chunk_len, n_targets) + 1].astype(np.int64)
            ids = torch.from_numpy(chunk).unsqueeze(0)
            logits, state = model.extend(ids[:, :-1].to(device), state)
            total += float(_losses(logits, ids[:, 1:]).sum())
            if metrics is not None:
                metrics.update(logits, ids[:, 1:])
    return Evaluation(total / n_targets, n_targets)


def evaluate_batches(
    model: torch.nn.Module,
    batches: Iterable[Any],
    *,
    loss: Any = None,
    metrics: Metrics | None = None,
    watch: Watch | None = None,
) -> Evaluation | None:
    """Measure a model on the targets of given batches.

    Args:
        model: From inputs (B, L), with ``mask=`` where rows are padded, to logits (B, L, V), or (B, C) for
            classes of whole rows.
        batches: Each has ``inputs`` (B, L) and ``targets`` (B, L) or (B,), and perhaps ``mask``, bool in the
            targets' shape: which of them count; and ``input_mask``, see `helix_train.objective.Examples`.
        loss: ``loss(prediction, targets, mask=…)``, the mean over those that count. It measures predictions
            of floating targets, where a cross-entropy would have nothing to say.
        metrics: Sees every prediction whose target counts.
        watch: See `evaluate_dataset`.

    Returns:
        None where there is no target that counts.

    Raises:
        ArgumentError: Targets are floating, and there is no loss.
    """
    total, count, n_right = 0.0, 0, 0
    of_rows = False
    with _measuring(model) as device:
        for batch in _watched(batches, watch, len(batches) if isinstance(batches, Sized) else None):
            examples = Examples.of(batch, device)
            logits = predict(model, examples)
            kept = ... if examples.mask is None else examples.mask.cpu()
            if metrics is not None:
                metrics.update(logits, examples.targets, mask=examples.mask)
            if examples.targets.is_floating_point():
                n_kept = examples.targets[kept].numel()
                total += n_kept * _mean(loss, logits, examples)
                count += n_kept
                continue
            losses = _losses(logits, examples.targets)[kept]
            total += float(losses.sum())
            count += losses.numel()
            of_rows = examples.targets.dim() == 1
            if of_rows:
                n_right += int((logits.argmax(-1) == examples.targets).cpu()[kept].sum())
    if not count:
        return None
    return Evaluation(total / count, count, accuracy=n_right / count if of_rows else None)


def _evaluate_text(
    model: torch.nn.Module, dataset: Any, chunk_len: int, metrics: Metrics, watch: Watch | None
) -> Evaluation | None:
    held_out = dataset.held_out()
    if len(held_out) < 2:
        return None
    if chunk_len:
        return evaluate_stream(model, held_out, chunk_len=chunk_len, metrics=metrics, watch=watch)
    sizes = {"seq_len": dataset.seq_len, "batch_size": dataset.batch_size}
    return evaluate(model, held_out, **sizes, metrics=metrics, watch=watch)


def _watched(batches: Iterable[T], watch: Watch | None, total: int | None) -> Iterator[T]:
    for number, batch in enumerate(batches):
        if watch is not None:
            watch(number, total)
        yield batch


@contextmanager
def _measuring(model: torch.nn.Module) -> Iterator[torch.device]:
    """Hold the model in evaluation mode without gradients; gives its device."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield next(model.parameters()).device
    finally:
        # FSDP2 keeps some weights whole after a forward pass, for a backward pass that does not come here.
        reshard: Any = getattr(model, "reshard", None)
        if reshard is not None:
            reshard()
        model.train(was_training)


def _losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the loss of each target (B, L) or (B,) in nats, as float64 on the CPU."""
    flat = targets.flatten().to(logits.device)
    losses = F.cross_entropy(logits.flatten(0, -2).float(), flat, reduction="none")
    return losses.cpu().double().view(targets.shape)


def _mean(loss: Any, prediction: torch.Tensor, examples: Examples) -> float:
    if loss is None:
        raise ArgumentError(
            "the data's targets are floating, and no loss is given that could measure their predictions"
        )
    masked = {} if examples.mask is None else {"mask": examples.mask}
    return float(loss(prediction.float(), examples.targets, **masked))


def _own_measures(model: torch.nn.Module, dataset: Any) -> dict[str, float]:
    measures = getattr(model, "measures", None)
    if measures is None or not hasattr(dataset, "evaluation_batches"):
        return {}
    with _measuring(model) as device:
        return dict(measures(Examples.of(batch, device).inputs for batch in dataset.evaluation_batches()))


def _check(n_tokens: int, **sizes: int) -> None:
    if n_tokens < 2:
        raise ArgumentError(
            f"held_out has {n_tokens} tokens, and 2 are the fewest of which one can be predicted; "
            "let the data hold out more (data.validation_fraction)"
        )
    for name, value in sizes.items():
        if value < 1:
            raise ArgumentError(f"{name} is {value}, allowed is >= 1")


def _starts(n_targets: int, seq_len: int) -> NDArray[np.integer]:
    """Return where the overlapping windows begin."""
    length = min(seq_len, n_targets)
    return np.append(np.arange(0, n_targets - length, max(1, length // 2)), n_targets - length)


def _n_batches(n_tokens: int, seq_len: int, batch_size: int) -> int:
    return math.ceil(len(_starts(n_tokens - 1, seq_len)) / batch_size)


def _batches(
    data: NDArray[np.integer], seq_len: int, batch_size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield ids, targets and whether each target is scored, (B, L) each; reads no more than a batch."""
    n_targets = len(data) - 1
    length = min(seq_len, n_targets)
    starts = _starts(n_targets, seq_len)
    # What the window before has scored is not scored again; before the first there is none.
    scored_until = np.append(0, starts[:-1] + length)
    for first in range(0, len(starts), batch_size):
        rows = slice(first, first + batch_size)
        positions = starts[rows, None] + np.arange(length)
        ids, targets = (torch.from_numpy(data[positions + shift].astype(np.int64)) for shift in (0, 1))
        yield ids, targets, torch.from_numpy(positions >= scored_until[rows, None])
