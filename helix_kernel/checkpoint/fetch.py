"""Reading and checking many pieces of packs with several threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import attrs
import numpy as np

from helix_kernel.checkpoint.compression import decompress, frame_of
from helix_kernel.checkpoint.digests import digest_of
from helix_kernel.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from helix_kernel.checkpoint.pack_files import Packs, Readable

_BATCH_BYTES = 4 * 2**20


@attrs.frozen
class Folded:
    """What a compressed chunk becomes.

    Args:
        nbytes: How many bytes.
        n_data: How many of them are data; zeros follow.
    """

    nbytes: int
    n_data: int


@attrs.frozen
class Piece:
    """Some bytes of a pack that are wanted somewhere.

    Args:
        pack: The pack's name.
        offset: Where they begin.
        nbytes: How many there are.
        digest: What the digest of their data must be; None: not to be checked.
        target: Takes them, or some of them: a writable buffer of uint8. None: they are only checked.
        skip: How many bytes of data come before those that the target takes.
        owner: What they are part of, for errors.
        n_tail: How many bytes after them are to be checked too.
        tail: Returns what those must be, given the bytes before them.
        folded: What they become, where they are a compressed chunk; None: they are the data themselves.
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
    folded: Folded | None = None


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


def data_of(piece: Piece, stored: memoryview, source: str) -> memoryview:
    """Return the data that stored bytes are or become, checked if the piece says so.

    Args:
        piece: Its target takes them straight away where it is as long as what they become.
        stored: Its bytes.
        source: The checkpoint, for errors.

    Raises:
        CheckpointError: They were changed.
    """
    data = stored if piece.folded is None else _unfolded(piece, piece.folded, stored, source)
    if piece.digest is not None and digest_of(data) != piece.digest:
        raise CheckpointError(f"{_damaged(piece, source)}, were changed after they were written")
    return data


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
    straight = target is not None and piece.folded is None and len(target) == piece.nbytes
    content = target if straight else _memory(piece.nbytes + piece.n_tail, piece, source)
    assert content is not None
    packs.read_into(piece.pack, piece.offset, content, piece.owner)
    data = data_of(piece, content[: piece.nbytes], source)
    if target is not None and not straight and not _is_all(target, piece.folded):
        target[:] = data[piece.skip : piece.skip + len(target)]
    if piece.n_tail and bytes(content[piece.nbytes :]) != piece.tail(content[: piece.nbytes]):
        raise CheckpointError(
            f"{source} is damaged: what follows {piece.owner} at byte {piece.offset + piece.nbytes} of "
            f"{piece.pack} was changed after it was written"
        )


def _unfolded(piece: Piece, folded: Folded, stored: memoryview, source: str) -> memoryview:
    target = piece.target
    try:
        frame = frame_of(stored, folded.nbytes)
        straight = target is not None and _is_all(target, folded)
        out = target if straight else _memory(folded.nbytes, piece, source)
        assert out is not None
        decompress(frame, out)
    except ValueError as error:
        raise CheckpointError(f"{_damaged(piece, source)}, were changed: {error}") from error
    return out[: folded.n_data]


def _is_all(target: memoryview, folded: Folded | None) -> bool:
    """Whether a compressed chunk is to be unfolded straight into a target."""
    return folded is not None and len(target) == folded.nbytes


def _damaged(piece: Piece, source: str) -> str:
    span = f"bytes {piece.offset} to {piece.offset + piece.nbytes} of {piece.pack}"
    return f"{source} is damaged: {span}, part of {piece.owner}"


def _memory(nbytes: int, piece: Piece, source: str) -> memoryview:
    try:
        return np.empty(nbytes, np.uint8).data
    except (MemoryError, ValueError) as error:
        raise CheckpointError(f"{source}: a chunk of {piece.owner} does not fit: {error}") from error
