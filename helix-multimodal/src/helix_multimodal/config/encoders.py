"""Options of the encoders; those of point clouds are in `points`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import attrs

from helix_kernel import FactoryOf, option
from helix_kernel.errors import ArgumentError

Layer = Annotated[Any, FactoryOf("layer", supplies=("d_model",))]
"""A layer that tokens go through, built in their width."""

PositionsKind = Literal["none", "sinusoidal", "learned"]


@attrs.frozen(kw_only=True)
class EncoderConfig:
    """What every encoder has."""

    d_model: int = option(help="Width of the tokens", ge=1)
    positions: PositionsKind = option("none", help="What tells where a token is; recurrent layers need none")
    layers: tuple[Layer, ...] = option(
        (), help="Layers that tokens go through, each residual after a norm, such as mamba"
    )


@attrs.frozen(kw_only=True)
class ByteEmbeddingConfig(EncoderConfig):
    """Bytes of text as tokens."""

    patch: int = option(1, help="Bytes that become one token", ge=1)


@attrs.frozen(kw_only=True)
class BytePatchesConfig(EncoderConfig):
    """Bytes of any kind of data as tokens."""

    patch: int = option(16, help="Bytes that become one token", ge=1)


@attrs.frozen(kw_only=True)
class ImagePatchesConfig(EncoderConfig):
    """Squares of a picture as tokens."""

    patch: int = option(8, help="Side of a square, in pixels", ge=1)
    channels: Literal[1, 3, 4] = option(3, help="1: grey, 3: colours on black, 4: colours and alpha")
    positions: PositionsKind = option("sinusoidal", help="What tells where a square is")
    jitter: float = option(
        0.0, help="How much training turns, moves, mirrors and lights pictures at random", ge=0, le=1
    )


@attrs.frozen(kw_only=True)
class LogMelConfig(EncoderConfig):
    """Energies in mel bands as tokens."""

    rate: int = option(16000, help="Samples a second of the sounds; give the modality the same", ge=1)
    n_fft: int = option(400, help="Samples of a frame", ge=1)
    hop: int = option(160, help="Samples from a frame to the next; at most n_fft", ge=1)
    n_mels: int = option(40, help="Number of mel bands", ge=1)
    scale: Literal["slaney", "htk"] = option("slaney", help="Mel scale")
    stack: int = option(4, help="Frames that become one token", ge=1)

    def __attrs_post_init__(self) -> None:
        if self.n_fft < self.hop:
            raise ArgumentError(f"n_fft is {self.n_fft}, allowed is >= hop={self.hop}")


@attrs.frozen(kw_only=True)
class LearnedFramesConfig(EncoderConfig):
    """Frames of sound by learned convolutions."""

    strides: tuple[int, ...] = option(
        (4, 4, 5, 8), help="Stride of each convolution; their product is the samples of a token"
    )
    d_hidden: int | None = option(None, help="Channels between convolutions; left out: d_model", ge=1)


@attrs.frozen(kw_only=True)
class VideoTubeletsConfig(EncoderConfig):
    """Boxes of a film as tokens."""

    patch: int = option(8, help="Side of a box, in pixels", ge=1)
    depth: int = option(2, help="Frames of a box", ge=1)
    positions: PositionsKind = option("sinusoidal", help="What tells where a box is, in time and place")
