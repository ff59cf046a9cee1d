"""Options of the modalities of text and pictures."""

from __future__ import annotations

from typing import Literal

import attrs

from helix_kernel import option
from helix_multimodal.files import MAX_BYTES

Channels = Literal["own", "grey", "rgb", "rgba"]
Depth = Literal[8, 16]


@attrs.frozen(kw_only=True)
class TextConfig:
    """Bytes of text, as they are."""

    lines: int | None = option(None, help="first lines that are kept, without what ends the last; all", ge=1)
    max_len: int | None = option(None, help="first bytes that are kept; left out: all", ge=1)
    max_bytes: int = option(MAX_BYTES, help="bytes that a file may have", ge=1)


@attrs.frozen(kw_only=True)
class ImageConfig:
    """Pixels, as the file has them or brought to one form."""

    channels: Channels = option(
        "own", help="what a pixel holds; own: what the file has (grey, grey and alpha, rgb or rgba)"
    )
    size: tuple[int, int] | None = option(
        None, help="height and width that pictures are brought to; left out: their own"
    )
    depth: Depth = option(8, help="bits of a tensor's elements; a sample keeps those of its file")
    background: tuple[int, int, int] = option(
        (255, 255, 255), help="what shows through where alpha is dropped, 0 to 255 each"
    )
    max_bytes: int = option(MAX_BYTES, help="bytes that a picture may take when it is decoded", ge=1)
