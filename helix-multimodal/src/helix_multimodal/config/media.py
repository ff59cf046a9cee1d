"""Options of the modalities of sound and films."""

from __future__ import annotations

from typing import Literal

import attrs

from helix_kernel import option
from helix_multimodal.files import MAX_BYTES


@attrs.frozen(kw_only=True)
class AudioConfig:
    """Sound, as samples between -1 and 1."""

    rate: int | None = option(None, help="Hz that sound is resampled to; left out: its own", ge=1)
    channels: Literal[1, 2] | None = option(
        None, help="1 for the mean of all channels, 2 for left and right; left out: what the file has"
    )
    seconds: float | None = option(None, help="first seconds that are kept; left out: all", gt=0)
    dtype: Literal["float32", "float64"] = option(
        "float32", help="float64 keeps integers of 32 bits and doubles exactly, too"
    )
    max_bytes: int = option(MAX_BYTES, help="bytes that sound may take when it is decoded", ge=1)


@attrs.frozen(kw_only=True)
class VideoConfig:
    """Films, as frames of 8 bits in RGB."""

    size: tuple[int, int] | None = option(
        None, help="height and width that frames are brought to; left out: their own"
    )
    rate: float | None = option(
        None, help="frames a second, picked or repeated; left out: all, at their own times", gt=0
    )
    max_frames: int | None = option(None, help="first frames that are kept; left out: all", ge=1)
    sound: bool = option(False, help="Whether a sample holds the sound, too, as the array waveform")
    max_bytes: int = option(MAX_BYTES, help="bytes that a film may take when it is decoded", ge=1)
