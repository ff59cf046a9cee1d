"""The dataset `byte-shards`: next-byte prediction over a folder of shards, documents kept apart or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, get_args

import numpy as np
import torch

from helix_data.batches import first_of_batch
from helix_data.config import Packing, check_sizes
from helix_data.shards.document_windows import DocumentWindows
from helix_data.shards.evaluation import documents, evaluation_spans, whole_text
from helix_data.shards.index import load_index, shard_folder, sizes
from helix_data.shards.orders import DocumentOrder, TextOrder
from helix_data.shards.spans import first_of_documents, padded
from helix_data.shards.stream import ShardStream
from helix_data.windows import check_length
from helix_kernel.errors import ArgumentError, DataError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helix_data.byte_stream import Bytes
    from helix_data.shards.spans import Spans


class ShardBatch(NamedTuple):
    """Windows of documents and, at each place, the byte that comes next.

    Attributes:
        inputs: (B, L) int64, values 0 to 255; 0 behind a document that is shorter than a window.
        targets: (B, L) int64: ``targets[:, t]`` follows ``inputs[:, t]`` in the text.
        mask: (B, L) bool: which targets count; None where all do.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    mask: torch.Tensor | None = None


class ByteShards:
    """A folder of shards of documents, whose every batch is a pure function of (seed, step, rank).

    ``helix data ingest`` makes such folders.

    What follows what, by `packing`:

    - ``stream``: documents end to end, as if they were one text, in the windows of
      `helix_data.windows.Windows`. Targets lie in the next document where one begins.
    - ``packed``: the same windows, but the first byte of a document is no target: it cannot be known
      from what stands before it. The model still sees the end of the document before.
    - ``documents``: a window lies in one document, and a shorter one is padded behind, where no target
      counts. A causal model sees nothing of another document. An epoch visits each window once, in an
      order of its own; documents of one byte have no target, and are left out.

    Args:
        path: The folder.
        seq_len: Bytes in a window.
        batch_size: Windows in a batch, on each rank.
        packing: See above.

    Raises:
        ArgumentError: An argument is out of range.
        DataError: The folder holds no finished shards, files are missing or cut off, or it is too short.
    """

    vocab_size = 256
    draws = False

    def __init__(
        self, *, path: str, seq_len: int = 256, batch_size: int = 16, packing: Packing = "stream"
    ) -> None:
        check_sizes(seq_len=seq_len, batch_size=batch_size, validation_fraction=0)
        if packing not in get_args(Packing):
            known = get_args(Packing)
            raise ArgumentError(
                f"packing is {packing!r}, allowed is one of {known}.{did_you_mean(packing, known)}"
            )
        self.seq_len = seq_len
        self.batch_size = batch_size
        self.packing = packing
        self._path = path
        folder = shard_folder(path)
        self._index = load_index(folder)
        self._train = ShardStream(folder, self._index.train)
        self._validation = ShardStream(folder, self._index.validation)
        self._order = self._document_order() if packing == "documents" else self._text_order()

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of the digests that the index has of all shards; reads none of them."""
        return self._index.fingerprint

    @property
    def windows_per_epoch(self) -> int:
        """Windows that an epoch visits."""
        return self._order.per_epoch

    def describe(self) -> str:
        """Return one line for people: origin, sizes and fingerprint."""
        return (
            f"byte-shards path={self._path!r}: {len(self._train):,} bytes to train on and "
            f"{len(self._validation):,} held out, packing {self.packing}, fingerprint {self.fingerprint}"
        )

    def batch(self, *, seed: int, step: int, rank: int = 0, world_size: int = 1) -> ShardBatch:
        """Return a rank's share of the training batch of a step.

        Args:
            seed: Decides the order of the windows, 0 to 2**64 - 1.
            step: Number of the batch from 0. With gradient accumulation, count the micro-batches.
            rank: Which of the ranks, 0 to `world_size` - 1.
            world_size: Ranks that share a global batch of ``world_size · batch_size`` windows.

        Returns:
            New tensors on the CPU, (batch_size, seq_len) each.

        Raises:
            ArgumentError: An argument is out of range.
            DataError: A file of the shards has gone or was cut off.
        """
        first = first_of_batch(step=step, rank=rank, world_size=world_size, batch_size=self.batch_size)
        return self.rows(first, self.batch_size, seed=seed)

    def rows(self, first: int, count: int, *, seed: int) -> ShardBatch:
        """Return windows of the endless shuffled sequence.

        Args:
            first: Number of the first one, counted through all epochs.
            count: How many.
            seed: Decides the order, 0 to 2**64 - 1.

        Raises:
            ArgumentError: The seed is out of range.
            DataError: A file of the shards has gone or was cut off.
        """
        return self._batch(self._train, self._order.spans(first, count, seed=seed))

    def held_out(self) -> Bytes:
        """Return the bytes of the validation split, read-only: a copy where there are several shards."""
        return self._validation.read(0, len(self._validation))

    def evaluation_batches(self) -> Iterator[ShardBatch]:
        """Yield the validation split in batches, the same every time, reading one at a time.

        Windows overlap by half and all but a text's first count the targets of their second half alone, so
        that each is predicted from at least ``seq_len // 2`` bytes, and once. With packing ``documents``
        each document is a text of its own.
        """
        stream = self._validation
        texts = documents(stream) if self.packing == "documents" else whole_text(stream)
        columns = np.arange(self.seq_len)
        for spans, scored_from in evaluation_spans(texts, seq_len=self.seq_len, batch_size=self.batch_size):
            batch = self._batch(stream, spans)
            scored = (columns >= scored_from[:, None]) & (columns < spans.lengths[:, None])
            mask = torch.from_numpy(scored)
            yield batch._replace(mask=mask if batch.mask is None else mask & batch.mask)

    def _batch(self, stream: ShardStream, spans: Spans) -> ShardBatch:
        windows = padded(stream, spans, self.seq_len)
        inputs = torch.from_numpy(windows[:, :-1].astype(np.int64))
        targets = torch.from_numpy(windows[:, 1:].astype(np.int64))
        return ShardBatch(inputs, targets, self._mask(stream, spans))

    def _mask(self, stream: ShardStream, spans: Spans) -> torch.Tensor | None:
        """Return which targets count, (B, L); None where all do."""
        if self.packing == "stream":
            return None
        if self.packing == "documents":
            return torch.from_numpy(np.arange(self.seq_len) < spans.lengths[:, None])
        return torch.from_numpy(~first_of_documents(stream, spans, self.seq_len))

    def _text_order(self) -> TextOrder:
        check_length(
            f"path={self._path!r}",
            n_train=len(self._train),
            n_held_out=len(self._validation),
            seq_len=self.seq_len,
            validation_fraction=0,
            unit="byte",
        )
        return TextOrder(len(self._train), seq_len=self.seq_len)

    def _document_order(self) -> DocumentOrder:
        windows = DocumentWindows(self._train, seq_len=self.seq_len)
        if not len(windows):
            raise DataError(
                f"path={self._path!r}: none of its {sizes(self._index.train)[0]:,} documents to train on has "
                "two bytes, the fewest of which one can be predicted"
            )
        return DocumentOrder(windows)
