"""The 256 characters that stand for bytes in the vocabulary of a byte-level tokenizer."""

from __future__ import annotations


def _character_of(byte: int, n_before: int) -> str:
    return chr(byte) if _is_visible(byte) else chr(256 + n_before)


def _is_visible(byte: int) -> bool:
    """Whether Latin-1 prints the byte: these stand for themselves, and the others follow from 256 on."""
    return 33 <= byte <= 126 or 161 <= byte <= 172 or 174 <= byte <= 255


CHARACTER_OF: tuple[str, ...] = tuple(
    _character_of(byte, sum(not _is_visible(before) for before in range(byte))) for byte in range(256)
)
"""Which character stands for each byte: the table of GPT-2 (Radford et al. 2019)."""

BYTE_OF: dict[str, int] = {character: byte for byte, character in enumerate(CHARACTER_OF)}
"""Which byte each character stands for."""
