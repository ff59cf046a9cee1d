"""Trains a byte-level byte-pair tokenizer on text that need not fit into memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from helix_data.byte_alphabet import CHARACTER_OF
from helix_data.text_pieces import pieces_of_lines, text_and_bytes
from helix_kernel.errors import ArgumentError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from helix_data.byte_stream import ByteStream

# The library holds 256 of these at a time, and some fifty bytes for each of theirs.
_PIECE = 1 << 13


def train_byte_pair(
    stream: ByteStream, *, vocab_size: int, min_frequency: int = 2, special_tokens: Sequence[str] = ()
) -> str:
    """Learn the most frequent pairs of a text (Sennrich et al. 2016, arXiv:1508.07909, over bytes).

    The text is cut into words as GPT-2 does, and no token crosses a word's border. Each merge takes the most
    frequent pair, ties by the tokens' ids, so equal texts and options give equal files. Bytes that
    are no UTF-8 are left out: all 256 have a token anyway. The text is read piece by piece; what grows
    with it is a count of each different word.

    Args:
        stream: The text.
        vocab_size: Tokens at most, special ones and the 256 bytes counted.
        min_frequency: How often a pair must occur to become a token.
        special_tokens: Names of tokens that no text becomes; theirs are the first ids.

    Returns:
        What a tokenizer.json holds. It has fewer tokens where no other pair occurs often enough.

    Raises:
        ArgumentError: A number is too small, or a special token is empty or named twice.
        DataError: The stream holds no text in UTF-8.
    """
    check_training(vocab_size=vocab_size, min_frequency=min_frequency, special_tokens=special_tokens)
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=list(special_tokens),
        initial_alphabet=list(CHARACTER_OF),
        show_progress=False,
    )
    backend.train_from_iterator(_counted(_texts(stream)), trainer)
    found: str = backend.to_str(pretty=True)
    return found


def check_training(*, vocab_size: int, min_frequency: int, special_tokens: Sequence[str]) -> None:
    """Check the options of `train_byte_pair`.

    Raises:
        ArgumentError: A number is too small, or a special token is empty or named twice.
    """
    least = 256 + len(special_tokens)
    if vocab_size < least:
        special = f" and {len(special_tokens)} special tokens" if special_tokens else ""
        raise ArgumentError(f"vocab_size is {vocab_size}, allowed is >= {least}: the 256 bytes{special}")
    if min_frequency < 1:
        raise ArgumentError(f"min_frequency is {min_frequency}, allowed is >= 1")
    for index, token in enumerate(special_tokens):
        if not token or token in special_tokens[:index]:
            what = f"{token!r} twice" if token else "an empty name"
            raise ArgumentError(f"special_tokens has {what}, allowed is each name once")


def _texts(stream: ByteStream) -> Iterator[str]:
    for piece in pieces_of_lines(stream, 0, len(stream), size=_PIECE):
        for part in text_and_bytes(piece.tobytes()):
            if isinstance(part, str):
                yield part


def _counted(texts: Iterator[str]) -> Iterator[str]:
    """Yield the texts.

    Raises:
        DataError: There is none.
    """
    empty = True
    for text in texts:
        empty = False
        yield text
    if empty:
        raise DataError("the files hold no text in UTF-8, from which alone pairs are learnt; give others")
