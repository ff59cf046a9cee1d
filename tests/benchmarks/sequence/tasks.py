"""Synthetic tasks that tell sequence layers apart; each batch is a pure function of (seed, split, step).

A task draws inputs (B, L), the target at each place (B, L), and a mask (B, L) of the places that count: the
loss and the accuracy look at those only. The right answer always follows from the inputs up to its place.
Training mixes easy rows among hard ones (fewer pairs, shorter spans), which lets small models find the way
in few steps; a test row is always as hard as the task gets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Drawn = tuple[Ints, Ints, NDArray[np.bool_]]

Split = Literal["train", "test"]
_STREAMS: dict[Split, int] = {"train": 0, "test": 1}


class Batch(NamedTuple):
    """Sequences and what to say about them.

    Attributes:
        inputs: (B, L) int64.
        targets: (B, L) int64; 0 wherever the mask is False.
        mask: (B, L) bool, the places that count.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    mask: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task at one size.

    Attributes:
        summary: What is asked, with its source.
        draw: Draws inputs, targets and mask, given a generator, rows, their length and the split.
        vocab_size: Ids V.
        lengths: Lengths that are tested; the first is trained on.
        batch_size: Rows in a training batch.
        guess: Accuracy on test rows of the best guess that ties no answer to its place: the commonest of the
            four answers shown, or any where there is no such set.
    """

    summary: str
    draw: Callable[[np.random.Generator, int, int, Split], Drawn]
    vocab_size: int
    lengths: tuple[int, ...]
    batch_size: int
    guess: float

    def batch(self, *, seed: int, step: int) -> Batch:
        """Return the training batch of a step, the same one for the same arguments."""
        return self._draw("train", seed, step, self.batch_size, self.lengths[0])

    def test(self, *, seed: int, rows: int, length: int) -> Batch:
        """Return test rows, drawn apart from all training batches."""
        return self._draw("test", seed, 0, rows, length)

    def _draw(self, split: Split, seed: int, step: int, rows: int, length: int) -> Batch:
        generator = np.random.default_rng([_STREAMS[split], seed, step, length])
        inputs, targets, mask = self.draw(generator, rows, length, split)
        return Batch(
            *(torch.from_numpy(array) for array in (inputs.copy(), np.where(mask, targets, 0), mask.copy()))
        )


N_PAIRS, N_KEYS, N_VALUES = 4, 8, 8
COMMONEST_OF_FOUR = 0.412
"""A quarter of how often, on average, the commonest of four draws from eight comes up in them."""
# Arora et al. draw the gap between a pair and its query with probability ~ gap**(a - 1), a = 0.01.
GAP_EXPONENT = 0.01 - 1


def recall(generator: np.random.Generator, rows: int, length: int, split: Split) -> Drawn:
    """Draw multi-query associative recall: key-value pairs, then queries, each followed by its answer.

    Keys are 0..7 and values 8..15. A query is a key seen before, more likely one of a pair close by.
    """
    n = _difficulty(generator, rows, N_PAIRS, split)
    keys = _without_replacement(generator, rows, N_KEYS, N_PAIRS)
    values = generator.integers(N_KEYS, N_KEYS + N_VALUES, size=(rows, N_PAIRS))
    slot = np.arange(length // 2)[:, None]
    pair = np.arange(N_PAIRS)
    likelihood = GAP_EXPONENT * np.log(np.maximum(slot - pair, 1)) + generator.gumbel(
        size=(rows, length // 2, N_PAIRS)
    )
    queried = np.where(pair < n[:, None, None], likelihood, -np.inf).argmax(-1)
    is_query = n[:, None] <= slot.T
    asked = np.where(is_query, queried, np.minimum(slot.T, N_PAIRS - 1))
    key, value = (np.take_along_axis(x, asked, axis=1) for x in (keys, values))
    inputs, targets = np.stack([key, value], -1), np.stack([value, value], -1)
    mask = np.stack([is_query, np.zeros_like(is_query)], -1)
    return tuple(x.reshape(rows, -1) for x in (inputs, targets, mask))


N_COPIED, N_SYMBOLS, NOISE, MARKER = 4, 8, 8, 9


def selective_copying(generator: np.random.Generator, rows: int, length: int, split: Split) -> Drawn:
    """Draw symbols (0..7) at random places among noise, then markers at which to say them in order."""
    context = length - N_COPIED
    places = np.sort(_without_replacement(generator, rows, context, N_COPIED), axis=1)
    symbols = generator.integers(0, N_SYMBOLS, size=(rows, N_COPIED))
    inputs = np.full((rows, length), NOISE)
    np.put_along_axis(inputs, places, symbols, axis=1)
    inputs[:, context:] = MARKER
    targets, mask = np.zeros_like(inputs), np.zeros(inputs.shape, dtype=bool)
    targets[:, context:], mask[:, context:] = symbols, True
    return inputs, targets, mask


N_TOKENS, SPACING = 16, 16


def induction(generator: np.random.Generator, rows: int, length: int, split: Split) -> Drawn:
    """Draw random tokens (0..15) with a special one (16), always followed by the same token in a row.

    The special token stands once in every 16 places; each time but the first, its follower is asked for.
    In a test row it stands only near the beginning and at the end.
    """
    inputs = generator.integers(0, N_TOKENS, size=(rows, length))
    answer = generator.integers(0, N_TOKENS, size=rows)
    places = np.arange(0, length, SPACING) + generator.integers(
        0, SPACING - 1, size=(rows, length // SPACING)
    )
    places = places[:, [0, -1]] if split == "test" else places
    targets, mask = np.zeros_like(inputs), np.zeros(inputs.shape, dtype=bool)
    np.put_along_axis(inputs, places, N_TOKENS, axis=1)
    np.put_along_axis(inputs, places + 1, answer[:, None], axis=1)
    np.put_along_axis(targets, places, answer[:, None], axis=1)
    np.put_along_axis(mask, places[:, 1:], True, axis=1)
    return inputs, targets, mask


N_DELAYED = 16


def delay(generator: np.random.Generator, rows: int, length: int, split: Split) -> Drawn:
    """Draw random tokens; each is to be said again exactly half the length later."""
    lag = length // 2
    inputs = generator.integers(0, N_DELAYED, size=(rows, length))
    mask = np.broadcast_to(np.arange(length) >= lag, inputs.shape)
    return inputs, np.roll(inputs, lag, axis=1), mask


def parity(generator: np.random.Generator, rows: int, length: int, split: Split) -> Drawn:
    """Draw bits; at each place, say whether the ones so far are odd. A test asks in the second half."""
    inputs = generator.integers(0, 2, size=(rows, length))
    first = length // 2 if split == "test" else 0
    mask = np.broadcast_to(np.arange(length) >= first, inputs.shape)
    return inputs, inputs.cumsum(axis=1) % 2, mask


TASKS = {
    "mqar": Task(
        summary="Multi-query associative recall (Arora et al. 2023, arXiv:2312.04927)",
        draw=recall,
        vocab_size=N_KEYS + N_VALUES,
        lengths=(32, 128),
        batch_size=64,
        guess=COMMONEST_OF_FOUR,
    ),
    "selective-copying": Task(
        summary="Selective copying (Gu and Dao 2023, arXiv:2312.00752, section 4.1.1)",
        draw=selective_copying,
        vocab_size=N_SYMBOLS + 2,
        lengths=(32, 128),
        batch_size=64,
        guess=COMMONEST_OF_FOUR,
    ),
    "induction": Task(
        summary="Induction heads (Gu and Dao 2023, arXiv:2312.00752, section 4.1.2)",
        draw=induction,
        vocab_size=N_TOKENS + 1,
        lengths=(64, 256, 1024),
        batch_size=32,
        guess=1 / N_TOKENS,
    ),
    "delay": Task(
        summary="The token of 32 places ago",
        draw=delay,
        vocab_size=N_DELAYED,
        lengths=(64,),
        batch_size=32,
        guess=1 / N_DELAYED,
    ),
    "parity": Task(
        summary="Parity of the bits so far",
        draw=parity,
        vocab_size=2,
        lengths=(32, 128),
        batch_size=64,
        guess=1 / 2,
    ),
}


def _difficulty(generator: np.random.Generator, rows: int, most: int, split: Split) -> Ints:
    """Return 1..most for each row (rows,); the most in a test."""
    return np.full(rows, most) if split == "test" else generator.integers(1, most + 1, size=rows)


def _without_replacement(generator: np.random.Generator, rows: int, n: int, k: int) -> Ints:
    """Return k different numbers below n in random order for each row, (rows, k)."""
    return generator.permuted(np.tile(np.arange(n), (rows, 1)), axis=1)[:, :k]
