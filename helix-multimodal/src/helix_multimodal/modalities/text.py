"""Text as its bytes, whatever their encoding: nothing is decoded, so that nothing is lost."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from helix_kernel.errors import ArgumentError, InputError
from helix_kernel.modality import Sample
from helix_multimodal.files import MAX_BYTES, check_size, reading, writing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from helix_kernel.modality import Source

_CONTROLS = frozenset(range(32)) - frozenset(b"\t\n\r\f\b\x1b")
_UTF16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_MOST_INVALID = 0.1


class Text:
    """A sample holds ``bytes`` (L,) uint8, and so does a tensor.

    Args:
        lines: First lines that are kept; None for all.
        max_len: First bytes that are kept; None for all.
        max_bytes: Bytes that a file may have; of one that is cut, only what is kept is read.

    Raises:
        ArgumentError: A number is below 1.
    """

    dtype = "uint8"
    shape: tuple[int | None, ...] = (None,)
    suffix = ".txt"
    tolerance = 0.0
    framed = False

    def __init__(
        self, lines: int | None = None, max_len: int | None = None, max_bytes: int = MAX_BYTES
    ) -> None:
        for name, value in (("lines", lines), ("max_len", max_len), ("max_bytes", max_bytes)):
            if value is not None and value < 1:
                raise ArgumentError(f"text: {name} is {value!r}, allowed is >= 1")
        self.lines, self.max_len, self.max_bytes = lines, max_len, max_bytes

    def sniff(self, head: bytes, name: str | None) -> float:  # noqa: ARG002 - bytes alone tell text
        """Return how likely these are bytes of text: UTF-8 but for a few, no control characters.

        Text with a byte order mark of UTF-16 counts, too. The more bytes there are, the surer it is.
        """
        if not head:
            return 0.0
        likely = 0.6 + 0.3 * min(1.0, len(head) / 64)
        if (encoding := _UTF16.get(head[:2])) and len(head) > 2:
            return likely if _is_utf16(head[2:], encoding) else 0.0
        if not _CONTROLS.isdisjoint(head):
            return 0.0
        # A character that is cut off at the end is no error.
        valid = codecs.getincrementaldecoder("utf-8")("ignore").decode(head)
        invalid = len(head) - len(valid.encode()) - _cut_off(head)
        return likely if invalid <= _MOST_INVALID * len(head) else 0.0

    def load(self, source: Source) -> Sample:
        """Read a file.

        Raises:
            DataError: There is none, it cannot be read, or has more bytes than `max_bytes`.
        """
        most = self.max_bytes + 1 if self.max_len is None else min(self.max_len, self.max_bytes + 1)
        with reading(source) as opened:
            data = opened.file.read(most)
            check_size(opened.where, len(data), self.max_bytes)
        return Sample(arrays={"bytes": np.frombuffer(self._kept(data), np.uint8).copy()})

    def encode(self, sample: Sample) -> Tensor:
        """Return the bytes as a tensor (L,) uint8.

        Raises:
            ArgumentError: The sample holds none.
        """
        return torch.from_numpy(_bytes_of(sample).copy())

    def decode(self, tensor: Tensor) -> Sample:
        """Return the sample of bytes (L,) of any integer dtype; what is beyond 0 and 255 is cut to them."""
        cut = tensor.detach().cpu().clamp(0, 255).to(torch.uint8)
        return Sample(arrays={"bytes": cut.numpy().copy()})

    def save(self, sample: Sample, target: Source) -> None:
        """Write the bytes as they are.

        Raises:
            InputError: The sample holds none, or the system refuses to write.
        """
        data = _bytes_of(sample).tobytes()
        with writing(target) as file:
            file.write(data)

    def samples(self, seed: int) -> Sequence[Sample]:
        """Return texts of several scripts and lines, one with bytes that are no UTF-8."""
        draw = np.random.default_rng(seed)
        words = ["kelp", "τέφρα", "鯨", "नदी", "🦀", "naïve", "so\t"]
        texts = [
            " ".join(draw.choice(words, 12)).encode() + b"\nsecond line\r\nthird",
            b"caf\xe9 au lait, and then some more of it" + bytes(draw.integers(97, 123, 9, dtype=np.uint8)),
            b"x",
        ]
        return [Sample(arrays={"bytes": np.frombuffer(self._kept(t), np.uint8).copy()}) for t in texts]

    def _kept(self, data: bytes) -> bytes:
        if self.lines is not None:
            data = b"".join(data.splitlines(keepends=True)[: self.lines]).rstrip(b"\r\n")
        return data if self.max_len is None else data[: self.max_len]


def _cut_off(head: bytes) -> int:
    """Return how many bytes at the end begin a character of UTF-8 that goes on beyond."""
    decoder = codecs.getincrementaldecoder("utf-8")("ignore")
    decoder.decode(head)
    return len(decoder.getstate()[0])


def _is_utf16(data: bytes, encoding: str) -> bool:
    text = data[: len(data) // 2 * 2].decode(encoding, "replace")
    wrong = sum(character == "\ufffd" or ord(character) in _CONTROLS for character in text)
    return wrong <= 1


def _bytes_of(sample: Sample) -> NDArray[Any]:
    data = sample.arrays.get("bytes")
    if data is None or data.ndim != 1 or data.dtype != np.uint8:
        given = f"only {sorted(sample.arrays)}" if data is None else f"{data.shape} of {data.dtype}"
        raise InputError(f"the sample's array 'bytes' is {given}, allowed is (L,) of uint8")
    return data
