"""Reading from the packs of a step in an object store: by ranged requests, several bytes apart in one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import obstore

from helix_kernel.checkpoint.object_errors import is_missing, named_errors
from helix_kernel.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from helix_kernel.checkpoint.fetch import Piece
    from helix_kernel.checkpoint.object_store import ObjectPrefix

_GAP_BYTES = 2**18
"""Bytes that are cheaper to read along than a request of their own."""

_HEADS = 16


class ObjectPacks:
    """The packs of a checkpoint: `Packs`.

    Args:
        at: The checkpoint.
        packs: Name → size.
        owner: Says of a pack and a size which array lies beyond that size.

    Raises:
        CheckpointError: A pack is missing, truncated or grown.
    """

    n_readers = 8

    def __init__(self, at: ObjectPrefix, packs: dict[str, int], owner: Callable[[str, int], str]) -> None:
        self._at = at
        self._owner = owner
        if packs:
            with ThreadPoolExecutor(min(_HEADS, len(packs))) as pool:
                for _ in pool.map(self._check, *zip(*packs.items(), strict=True)):
                    pass

    def read_into(self, pack: str, offset: int, target: memoryview, owner: str) -> None:
        """See `Packs.read_into`."""
        if len(target):
            (content,) = self._read(pack, [_Span(offset, len(target), owner)])
            target[:] = content

    def fetched(self, pieces: Sequence[Piece]) -> _Fetched:
        """See `Packs.fetched`: neighbours come by one request."""
        spans: dict[str, list[_Span]] = {}
        for piece in pieces:
            span = _Span(piece.offset, piece.nbytes + piece.n_tail, piece.owner)
            spans.setdefault(piece.pack, []).append(span)
        contents = {}
        for pack, wanted in spans.items():
            for span, content in zip(wanted, self._read(pack, wanted), strict=True):
                contents[pack, span.offset, span.nbytes] = content
        return _Fetched(contents)

    def map(self, pack: str) -> None:  # noqa: ARG002 - the protocol's
        """See `Packs.map`: not possible."""
        return

    def close(self) -> None:
        """See `Packs.close`: nothing is open."""

    def _check(self, pack: str, size: int) -> None:
        with named_errors(f"read {pack} of {self._at}"):
            try:
                found = obstore.head(self._at.store, self._at.key(pack))["size"]
            except FileNotFoundError as error:
                if is_missing(error):
                    raise self._missing(pack, self._owner(pack, 0)) from None
                raise
        if found != size:
            lost = f"part of {self._owner(pack, found)}, has" if found < size else "has"
            raise CheckpointError(
                f"{self._at} is damaged: {pack}, {lost} {found} bytes of {size} "
                f"({'truncated' if found < size else 'grown'})"
            )

    def _missing(self, pack: str, owner: str) -> CheckpointError:
        return CheckpointError(f"{self._at} is damaged: {pack}, part of {owner}, is missing")

    def _read(self, pack: str, spans: Sequence[_Span]) -> list[memoryview]:
        starts, lengths = [span.offset for span in spans], [span.nbytes for span in spans]
        with named_errors(f"read {pack} of {self._at}, part of {spans[0].owner}"):
            try:
                found = obstore.get_ranges(
                    self._at.store, self._at.key(pack), starts=starts, lengths=lengths, coalesce=_GAP_BYTES
                )
            except FileNotFoundError as error:
                if is_missing(error):
                    raise self._missing(pack, spans[0].owner) from None
                raise
        contents = [memoryview(content) for content in found]
        for span, content in zip(spans, contents, strict=True):
            if len(content) != span.nbytes:
                raise CheckpointError(
                    f"{self._at} is damaged: {pack}, part of {span.owner}, is truncated at byte "
                    f"{span.offset + len(content)}"
                )
        return contents


class _Span(NamedTuple):
    """Some bytes of a pack, and what they are part of."""

    offset: int
    nbytes: int
    owner: str


class _Fetched:
    """Bytes that were read already, by pack, offset and length."""

    def __init__(self, contents: dict[tuple[str, int, int], memoryview]) -> None:
        self._contents = contents

    def read_into(self, pack: str, offset: int, target: memoryview, owner: str) -> None:  # noqa: ARG002 - the protocol's
        """See `Packs.read_into`."""
        if len(target):
            target[:] = self._contents[pack, offset, len(target)]
