"""What a tokenizer is, and the one that needs none: every byte is a token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class Tokenizer(Protocol):
    """What a component of kind ``tokenizer`` is: it turns text into ids and back."""

    @property
    def vocab_size(self) -> int:
        """Number of ids: every id lies in 0 to `vocab_size` - 1."""
        ...

    @property
    def fingerprint(self) -> str:
        """Tells apart tokenizers that give other ids."""
        ...

    def encode(self, data: bytes) -> NDArray[Any]:
        """Return the ids (N,) of a text, an array of integers.

        Raises:
            ArgumentError: The bytes are no text to this tokenizer.
        """
        ...

    def decode(self, ids: Sequence[int]) -> bytes:
        """Return the text of ids. A character of which some bytes are missing becomes U+FFFD."""
        ...


class ByteTokenizer:
    """Every byte is a token, and its value the id. Any bytes are text, and none is ever missing."""

    vocab_size = 256
    fingerprint = "bytes"

    def encode(self, data: bytes) -> NDArray[np.uint8]:
        """Return the bytes, (N,) uint8, read-only."""
        return np.frombuffer(data, dtype=np.uint8)

    def decode(self, ids: Sequence[int]) -> bytes:
        """Return the bytes.

        Raises:
            ArgumentError: An id is none of a byte.
        """
        try:
            return bytes(ids)
        except ValueError as error:
            wrong = next(value for value in ids if not 0 <= value < 256)
            raise ArgumentError(f"ids hold {wrong}, allowed is 0 to 255, the values of bytes") from error
