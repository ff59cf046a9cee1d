"""The dataset `text-tokens`: next-token prediction over any files, by any tokenizer."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from helix_data.baselines import compressed_bits_per_byte
from helix_data.byte_tokenizer import ByteTokenizer
from helix_data.config import check_sizes
from helix_data.sources import open_corpus, origin_of
from helix_data.text_bytes import Batch
from helix_data.text_pieces import next_character, pieces_of_lines
from helix_data.windows import Windows, check_length
from helix_kernel.errors import ArgumentError, DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from helix_data.byte_tokenizer import Tokenizer
    from helix_data.config import Source

# What is encoded at a time: the library takes some hundred bytes a token meanwhile.
_PIECE = 1 << 20


class TextTokens:
    """A corpus as tokens, whose every training batch is a pure function of (seed, step, rank).

    The last `validation_fraction` of the corpus's bytes is held out, from the beginning of a character
    on, so that models over tokens and over bytes are measured on the same text. Both parts are encoded
    once, in pieces of a mebibyte that end where a line does, and kept in memory, in one, two or four
    bytes a token. Windows are those of `helix_data.windows.Windows`.

    Args:
        tokenizer: A component of kind ``tokenizer``; None for bytes.
        source: A corpus that Python carries, see `helix_data.sources.open_source`.
        paths: Files, folders and globs, see `helix_data.sources.open_paths`. Exactly one of
            `source` and `paths` is given.
        seq_len: Tokens in a window.
        batch_size: Windows in a batch, on each rank.
        validation_fraction: Share of the corpus that is held out, cut from its end; 0 to below 1.

    Raises:
        ArgumentError: An argument is out of range, or not exactly one of `source` and `paths` is given.
        DataError: The corpus is missing, empty, unreadable, too short, or no text to the tokenizer.
    """

    draws = False

    def __init__(
        self,
        *,
        tokenizer: Tokenizer | None = None,
        source: Source | None = None,
        paths: Sequence[str] = (),
        seq_len: int = 256,
        batch_size: int = 16,
        validation_fraction: float = 0.1,
    ) -> None:
        check_sizes(seq_len=seq_len, batch_size=batch_size, validation_fraction=validation_fraction)
        self.tokenizer = ByteTokenizer() if tokenizer is None else tokenizer
        self.seq_len = seq_len
        self.batch_size = batch_size
        self._origin = origin_of(source, paths)
        self._stream = open_corpus(source, paths)
        size = len(self._stream)
        self._cut = next_character(self._stream, size - int(size * validation_fraction))
        self._train, self._held_out = self._encode(0, self._cut), self._encode(self._cut, size)
        check_length(
            self._origin,
            n_train=len(self._train),
            n_held_out=len(self._held_out),
            seq_len=seq_len,
            validation_fraction=validation_fraction,
            unit="token",
        )
        self._windows = Windows(len(self._train), seq_len=seq_len, batch_size=batch_size)

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return self.tokenizer.vocab_size

    @property
    def tokens_per_byte(self) -> float:
        """Tokens of a byte of text, on average over the held-out part, or the rest where there is none."""
        if len(self._held_out):
            return len(self._held_out) / (len(self._stream) - self._cut)
        return len(self._train) / self._cut

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the corpus's own SHA-256 and the tokenizer's fingerprint, in hexadecimal."""
        both = f"{self._stream.sha256()} {self.tokenizer.fingerprint}"
        return hashlib.sha256(both.encode()).hexdigest()

    def describe(self) -> str:
        """Return one line for people: origin, sizes and fingerprint."""
        n_train, n_held_out = len(self._train), len(self._held_out)
        return (
            f"text-tokens {self._origin}: {len(self._stream):,} bytes as {n_train + n_held_out:,} tokens of "
            f"{self.vocab_size:,} ids, {n_train:,} to train on and the last {n_held_out:,} held out, "
            f"sha256 {self.fingerprint}"
        )

    def batch(self, *, seed: int, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """Return a rank's share of the training batch of a step; see `TextBytes.batch`.

        Returns:
            New tensors on the CPU, (batch_size, seq_len) each, int64.

        Raises:
            ArgumentError: An argument is out of range.
        """
        starts = self._windows.of_batch(seed=seed, step=step, rank=rank, world_size=world_size)
        windows = self._train[starts[:, None] + np.arange(self.seq_len + 1)].astype(np.int64)
        inputs, targets = windows[:, :-1].copy(), windows[:, 1:].copy()
        return Batch(torch.from_numpy(inputs), torch.from_numpy(targets))

    def held_out(self) -> NDArray[Any]:
        """Return the held-out tokens, (N,), read-only."""
        return self._held_out

    def compressed_bits_per_byte(self) -> dict[str, float]:
        """Return what general compressors, primed with the training text, spend on a held-out byte."""
        train, held_out = (
            self._stream.read(start, stop).tobytes()
            for start, stop in ((0, self._cut), (self._cut, len(self._stream)))
        )
        return compressed_bits_per_byte(train, held_out)

    def _encode(self, start: int, stop: int) -> NDArray[Any]:
        # The smallest type that holds every id.
        dtype = np.min_scalar_type(max(self.vocab_size - 1, 255))
        parts = [np.empty(0, dtype)]
        for piece in pieces_of_lines(self._stream, start, stop, size=_PIECE):
            try:
                parts.append(self.tokenizer.encode(piece.tobytes()).astype(dtype))
            except ArgumentError as error:
                raise DataError(f"{self._origin}, from byte {start:,} on: {error}") from error
            start += len(piece)
        tokens = np.concatenate(parts)
        tokens.flags.writeable = False
        return tokens
