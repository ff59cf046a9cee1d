"""Windows of a text in an endless shuffled order that is computed for any place directly."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from helix_data.batches import check_seed, first_of_batch
from helix_data.shuffle import Shuffle, philox_words
from helix_kernel.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Keeps the words that place an epoch's windows apart from those that shuffle them.
_OFFSET_STREAM = 1 << 63
# Windows that are placed together: for a few, the time goes into calls and not into numbers.
_BLOCK = 1024


class Windows:
    """Windows of `seq_len` tokens, and one more for the last target, that do not overlap in their inputs.

    An epoch visits each once, in an order and from a first token of its own (so that windows begin
    elsewhere in every epoch), and leaves out at most 2 · `seq_len` tokens at the ends. Window number
    ``step · world_size · batch_size + rank · batch_size + row`` of this endless sequence is computed
    directly, so resuming at any step costs nothing and the order is the same however many ranks share a
    global batch.

    Args:
        n_tokens: Tokens to train on, more than `seq_len`.
        seq_len: Tokens in a window.
        batch_size: Windows in a batch, on each rank.
    """

    def __init__(self, n_tokens: int, *, seq_len: int, batch_size: int) -> None:
        self._n_tokens = n_tokens
        self._seq_len = seq_len
        self._batch_size = batch_size

    @property
    def per_epoch(self) -> int:
        """Windows that an epoch visits."""
        # One window is given up, so that an epoch may begin at any of seq_len tokens.
        return max(1, (self._n_tokens - self._seq_len) // self._seq_len)

    def of_batch(self, *, seed: int, step: int, rank: int, world_size: int) -> NDArray[np.int64]:
        """Return where the windows of a rank's share of a step's batch begin, (batch_size,) int64.

        Raises:
            ArgumentError: An argument is out of range.
        """
        first = first_of_batch(step=step, rank=rank, world_size=world_size, batch_size=self._batch_size)
        return self.starts(first, self._batch_size, seed=seed)

    def starts(self, first: int, count: int, *, seed: int) -> NDArray[np.int64]:
        """Return where windows of the endless shuffled sequence begin in the text.

        Args:
            first: Number of the first window wanted, counted through all epochs.
            count: How many.
            seed: Decides the order, 0 to 2**64 - 1.

        Returns:
            (count,) int64, offsets in tokens.
        """
        check_seed(seed)
        starts = []
        while count:
            epoch, place = divmod(first, self.per_epoch)
            block, skipped = divmod(place, _BLOCK)
            found = _starts_of_block(self._n_tokens, self._seq_len, self.per_epoch, seed, epoch, block)
            starts.append(found[skipped : skipped + count])
            first, count = first + len(starts[-1]), count - len(starts[-1])
        return np.concatenate(starts)


def check_length(
    origin: str, *, n_train: int, n_held_out: int, seq_len: int, validation_fraction: float, unit: str
) -> None:
    """Check that a text is long enough to train on and, where a part is held out, to predict in.

    Args:
        origin: How errors call the text.
        n_train: Tokens to train on.
        n_held_out: Tokens held out.
        seq_len: Tokens in a window.
        validation_fraction: The share that was to be held out.
        unit: What a token is, such as ``"byte"``.

    Raises:
        DataError: It is not.
    """
    n_tokens, needed = n_train + n_held_out, seq_len + 1
    if n_train < needed:
        raise DataError(
            f"{origin}: too short: {n_train} of its {n_tokens} {unit}s are left to train on; a window of "
            f"seq_len={seq_len} needs {needed} (its last target is one {unit} further); give more text or a "
            "smaller seq_len"
        )
    if validation_fraction > 0 and n_held_out < 2:
        raise DataError(
            f"{origin}: too short: validation_fraction={validation_fraction} of its {n_tokens} {unit}s holds "
            f"out {n_held_out}, and 2 are the fewest that can be predicted; give more text, a larger "
            "validation_fraction, or 0 to hold out nothing"
        )


@lru_cache(maxsize=64)
def _starts_of_block(
    n_tokens: int, seq_len: int, n_windows: int, seed: int, epoch: int, block: int
) -> NDArray[np.int64]:
    """Return where the windows of a block of an epoch begin, (K,)."""
    offset, shuffle = _plan_epoch(n_tokens, seq_len, n_windows, seed, epoch)
    places = np.arange(block * _BLOCK, min((block + 1) * _BLOCK, n_windows))
    return shuffle(places) * seq_len + offset


@lru_cache(maxsize=16)
def _plan_epoch(n_tokens: int, seq_len: int, n_windows: int, seed: int, epoch: int) -> tuple[int, Shuffle]:
    """Return the first token of the epoch's first window, and the order of its windows."""
    slack = n_tokens - 1 - n_windows * seq_len
    offset = int(philox_words(seed, _OFFSET_STREAM + epoch, 1)[0]) % (slack + 1)
    return offset, Shuffle(n_windows, seed=seed, stream=epoch)
