"""Tokenizers of the `tokenizers` library, which is the extra ``helix-data[tokenizers]``."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer as Backend

from helix_kernel.errors import ArgumentError, DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class HFTokenizer:
    """The tokenizer of a tokenizer.json, as Hugging Face models have beside their weights.

    Truncation and padding that the file asks for are left out: a text gets all its ids, and no others.

    Args:
        path: The file.
        special_tokens: Whether `encode` adds the tokens that the file puts around a text, such as one for
            its beginning.

    Raises:
        DataError: The file is missing, or is not one of the library.
    """

    def __init__(self, *, path: str, special_tokens: bool = False) -> None:
        self.path = path
        self.special_tokens = special_tokens
        data = _read(path)
        try:
            self._backend = Backend.from_buffer(data)
        except Exception as error:  # the library raises nothing more exact
            raise DataError(f"path={path!r}: is not a tokenizer.json of the library: {error}") from error
        self._backend.no_truncation()
        self._backend.no_padding()
        self._sha256 = hashlib.sha256(data).hexdigest()

    @property
    def vocab_size(self) -> int:
        """Number of ids, those of added tokens counted."""
        return max(self._backend.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the file, and whether special tokens are added."""
        return f"{self._sha256}{' with special tokens' if self.special_tokens else ''}"

    def encode(self, data: bytes) -> NDArray[np.uint32]:
        """Return the ids of a text, (N,) uint32.

        Args:
            data: Text in UTF-8.

        Raises:
            ArgumentError: It is not UTF-8.
        """
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise ArgumentError(
                f"byte {error.start} is {data[error.start]:#04x}, which is not UTF-8 ({error.reason}); "
                "this tokenizer takes text in UTF-8, bytes takes anything"
            ) from error
        encoding = self._backend.encode(text, add_special_tokens=self.special_tokens)
        return np.array(encoding.ids, dtype=np.uint32)

    def decode(self, ids: Sequence[int]) -> bytes:
        """Return the text of ids in UTF-8, special tokens by their names; ids that no token has are nothing.

        Raises:
            ArgumentError: An id is below 0.
        """
        self._check_ids(ids)
        text: str = self._backend.decode([int(value) for value in ids], skip_special_tokens=False)
        return text.encode()

    def _check_ids(self, ids: Sequence[int]) -> None:
        wrong = next((int(value) for value in ids if value < 0), None)
        if wrong is not None:
            raise ArgumentError(f"ids hold {wrong}, allowed is 0 to {self.vocab_size - 1}")


def _read(path: str) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise DataError(f"path={path!r}: cannot be read: {error.strerror}") from error
