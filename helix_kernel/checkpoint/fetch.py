"""Reading and checking many pieces of packs with several threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import attrs
import numpy as np

from helix_kernel.checkpoint.digests import digest_of
from helix_kernel.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from helix_kernel.checkpoint.pack_files import Packs, Readable

_BATCH_BYTES = 4 * 2**20


@attrs.frozen
class Piece:
    """Some bytes of a pack that are wanted somewhere.

    Args:
        pack: The pack's name.
        offset: Where they begin.
        nbytes: How many there are.
        digest: What their digest must be; None: not to be checked.
        target: Takes them, or some of them: a writable buffer of uint8. None: they are only checked.
        skip: How many of them come before those that the target takes.
        owner: What they are part of, for errors.
        n_tail: How many bytes after them are to be checked too.
        tail: Returns what those must be, given the bytes before them.
    """

    pack: str
    offset: int
    nbytes: int
    digest: str | None
    target: memoryview | None
    skip: int
    owner: str
    n_tail: int = 0
    tail: Callable[[memoryview], bytes] = bytes


def fetch(pieces: Sequence[Piece], packs: Packs, source: str) -> None:
    """Read all pieces into their targets.

    Args:
        pieces: What to read; targets do not overlap.
        packs: Where from.
        source: The checkpoint, for errors.

    Raises:
        CheckpointError: Bytes are missing or changed; of several such pieces one is named.
    """
    batches = list(_batches(pieces))
    if len(batches) < 2:
        for batch in batches:
            _fetch_batch(batch, packs, source)
        return
    with ThreadPoolExecutor(min(packs.n_readers, len(batches))) as pool:
        try:
            for _ in pool.map(lambda batch: _fetch_batch(batch, packs, source), batches):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _batches(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    batch: list[Piece] = []
    nbytes = 0
    for piece in pieces:
        batch.append(piece)
        nbytes += piece.nbytes
        if nbytes >= _BATCH_BYTES:
            yield batch
            batch, nbytes = [], 0
    if batch:
        yield batch


def _fetch_batch(batch: list[Piece], packs: Packs, source: str) -> None:
    fetched = packs.fetched(batch)
    for piece in batch:
        _fetch(piece, fetched, source)


def _fetch(piece: Piece, packs: Readable, source: str) -> None:
    target = piece.target
    if target is not None and len(target) == piece.nbytes:
        packs.read_into(piece.pack, piece.offset, target, piece.owner)
        content = target
    else:
        content = _memory(piece, source)
        packs.read_into(piece.pack, piece.offset, content, piece.owner)
        if target is not None:
            target[:] = content[piece.skip : piece.skip + len(target)]
    if piece.digest is not None and digest_of(content[: piece.nbytes]) != piece.digest:
        raise CheckpointError(
            f"{source} is damaged: bytes {piece.offset} to {piece.offset + piece.nbytes} of {piece.pack}, "
            f"part of {piece.owner}, were changed after they were written"
        )
    if piece.n_tail and bytes(content[piece.nbytes :]) != piece.tail(content[: piece.nbytes]):
        raise CheckpointError(
            f"{source} is damaged: what follows {piece.owner} at byte {piece.offset + piece.nbytes} of "
            f"{piece.pack} was changed after it was written"
        )


def _memory(piece: Piece, source: str) -> memoryview:
    try:
        return np.empty(piece.nbytes + piece.n_tail, np.uint8).data
    except (MemoryError, ValueError) as error:
        raise CheckpointError(f"{source}: a chunk of {piece.owner} does not fit: {error}") from error
