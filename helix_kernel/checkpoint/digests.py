"""Digests of stored bytes: XXH3 of 128 bits, which is faster than the memory that it reads.

They find damage and tell equal arrays from changed ones. They do not withstand an attacker, who could
as well write a new manifest; ``Checkpoint.sha256`` is there for whoever compares with a published one.

Source: xxHash, https://github.com/Cyan4973/xxHash, "XXH3", in the canonical big-endian hexadecimal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import xxhash

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

HEX_LENGTH = 32


def digest_of(content: bytes | memoryview) -> str:
    """Return the XXH3-128 of some bytes, in hexadecimal."""
    return xxhash.xxh3_128_hexdigest(content)


def digest_of_all(digests: Sequence[str]) -> str:
    """Return the digest of an array from those of its chunks, in their order: of one, it is that one's."""
    return digests[0] if len(digests) == 1 else digest_of("".join(digests).encode())


class ChunkDigests:
    """The digest of each chunk of a run of bytes that comes in pieces.

    Args:
        chunk_bytes: How many bytes a chunk has; the last may have fewer.
    """

    def __init__(self, chunk_bytes: int) -> None:
        self._chunk_bytes = chunk_bytes
        self._digests: list[str] = []
        self._begun = xxhash.xxh3_128()
        self._length = 0  # of the chunk begun

    def update(self, content: np.ndarray) -> None:
        """Take the next bytes, as a one-dimensional array of uint8."""
        start = 0
        while start < len(content):
            n = min(self._chunk_bytes - self._length, len(content) - start)
            self._begun.update(content[start : start + n].data)
            self._length += n
            start += n
            if self._length == self._chunk_bytes:
                self._close()

    def finish(self) -> tuple[str, ...]:
        """Return the digests of all chunks."""
        if self._length:
            self._close()
        return tuple(self._digests)

    def _close(self) -> None:
        self._digests.append(self._begun.hexdigest())
        self._begun.reset()
        self._length = 0
