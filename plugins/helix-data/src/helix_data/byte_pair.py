"""Byte-pair encoding of any bytes, text or not, by a tokenizer.json of the library `tokenizers`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from helix_data.byte_alphabet import BYTE_OF, CHARACTER_OF
from helix_data.hf_tokenizer import HFTokenizer
from helix_data.text_pieces import text_and_bytes
from helix_kernel.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# What tokenizers that change their text would change: spaces, case, accents, line ends, no text at all.
_PROBE = "Aa  \t\r\n  e\N{COMBINING ACUTE ACCENT}é ﬁ\N{NO-BREAK SPACE} 日".encode() + bytes(range(256))


class BytePair(HFTokenizer):
    """A tokenizer.json of byte-level byte-pair encoding, by which any bytes go to ids and come back.

    Byte-level means that its alphabet is the 256 bytes (Radford et al. 2019, GPT-2, section 2.2). Text gets
    the ids that the library gives it. A byte that is no UTF-8 gets the id of that byte alone, and ids become
    bytes one by one, so that decode(encode(data)) is data for every data, and characters in two halves
    are never lost. Words of a text that look like a special token are words: only `special_ids` names
    its id.

    Args:
        path: The file, such as ``helix tokenizer train`` writes.

    Raises:
        DataError: The file is missing, is not one of the library, lacks bytes, or changes its text.
    """

    def __init__(self, *, path: str) -> None:
        super().__init__(path=path)
        self._backend.encode_special_tokens = True
        vocabulary: dict[str, int] = self._backend.get_vocab(with_added_tokens=False)
        missing = [byte for byte, character in enumerate(CHARACTER_OF) if character not in vocabulary]
        if missing:
            raise DataError(
                f"path={path!r}: is not byte-level: {len(missing)} of the 256 bytes have no token, such as "
                f"{missing[0]:#04x}; give one that `helix tokenizer train` wrote, or use hf-tokenizer"
            )
        self._id_of_byte = np.array([vocabulary[character] for character in CHARACTER_OF], dtype=np.uint32)
        self._added = self._backend.get_added_tokens_decoder()
        self._bytes_of = _bytes_of_tokens(vocabulary, self._added)
        if self.decode(self.encode(_PROBE).tolist()) != _PROBE:
            raise DataError(
                f"path={path!r}: changes a text before it cuts it, as a normalizer or prefix does, so that "
                "ids do not lead back to the same bytes; use hf-tokenizer for it"
            )

    def __setstate__(self, state: dict[str, Any]) -> None:
        # The library's pickle forgets it: another process would take a text's words for special tokens.
        vars(self).update(state)
        self._backend.encode_special_tokens = True

    @property
    def special_ids(self) -> dict[str, int]:
        """The ids of tokens that no text becomes, by name, in the order of their ids."""
        return {token.content: id_ for id_, token in sorted(self._added.items()) if token.special}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the file, and that any bytes are taken."""
        return f"{super().fingerprint} of any bytes"

    def encode(self, data: bytes) -> NDArray[np.uint32]:
        """Return the ids of any bytes, (N,) uint32."""
        parts = [np.empty(0, dtype=np.uint32)]
        for part in text_and_bytes(data):
            if isinstance(part, str):
                parts.append(np.array(self._backend.encode(part, add_special_tokens=False).ids, np.uint32))
            else:
                parts.append(self._id_of_byte[np.frombuffer(part, dtype=np.uint8)])
        return np.concatenate(parts)

    def decode(self, ids: Sequence[int]) -> bytes:
        """Return the bytes of ids, special tokens by their names; ids that no token has are nothing.

        Raises:
            ArgumentError: An id is below 0.
        """
        self._check_ids(ids)
        return b"".join(self._bytes_of.get(int(value), b"") for value in ids)


def _bytes_of_tokens(vocabulary: dict[str, int], added: dict[int, Any]) -> dict[int, bytes]:
    found = {}
    for token, value in vocabulary.items():
        if all(character in BYTE_OF for character in token):
            found[value] = bytes(BYTE_OF[character] for character in token)
    return found | {value: token.content.encode() for value, token in added.items()}
