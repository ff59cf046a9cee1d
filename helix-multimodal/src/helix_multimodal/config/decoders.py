"""Options of the decoders; those of point clouds are in `points`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import attrs

from helix_kernel import FactoryOf, option
from helix_kernel.errors import ArgumentError

Layer = Annotated[Any, FactoryOf("layer", supplies=("d_model",))]
"""A layer that the decoder builds in its own width."""


@attrs.frozen(kw_only=True)
class BytesConfig:
    """Bytes, each after those before it."""

    d_model: int = option(help="Width of the tokens", ge=1)
    patch: int = option(16, help="Bytes of a patch", ge=1)
    values: Literal["uint8", "int32", "float32"] = option(
        "uint8",
        help="What bytes are of: uint8 (text, pictures), int32 (pictures of 16 bits), float32 (sound)",
    )
    layers: tuple[Layer, ...] = option(
        ({"use": "mamba"},), help="Causal layers over patches; without any, a patch knows the one before"
    )
    local: tuple[Layer, ...] = option(({"use": "min-gru"},), help="Causal layers over the bytes of a patch")


@attrs.frozen(kw_only=True)
class PixelsConfig:
    """Squares of a picture, all at once."""

    d_model: int = option(help="Width of the tokens", ge=1)
    patch: int = option(8, help="Side of a square, in pixels", ge=1)
    channels: Literal[1, 3, 4] = option(3, help="What is predicted: 1 grey, 3 colours, 4 colours and alpha")
    depth: Literal[8, 16] = option(8, help="Bits of a pixel that is made")
    n_layers: int = option(2, help="Rounds in which squares ask the tokens", ge=1)
    n_heads: int = option(4, help="Heads of that attention; they divide d_model", ge=1)
    layers: tuple[Layer, ...] = option((), help="Layers that squares go through then, such as bidirectional")

    def __attrs_post_init__(self) -> None:
        if self.d_model % self.n_heads:
            raise ArgumentError(f"n_heads is {self.n_heads}, allowed is a divisor of d_model={self.d_model}")


_RVQ = {
    "use": "rvq",
    "n_quantizers": 4,
    "n_codes": 256,
    # A first batch may be too small for k-means, so codes begin at random and are moved sooner.
    "kmeans_init": False,
    "decay": 0.95,
    "replace_after": 10,
}


@attrs.frozen(kw_only=True)
class WaveformConfig:
    """Sound through codes."""

    d_model: int = option(help="Width of the tokens", ge=1)
    strides: tuple[int, ...] = option(
        (4, 4, 5, 4), help="Strides of the transposed convolutions, from the waveform inwards"
    )
    d_hidden: int | None = option(None, help="Channels between them; left out: d_model", ge=1)
    quantizer: Layer = option(
        _RVQ,
        help="What makes codes of the vectors: a layer with encode and decode, such as rvq or fsq",
    )
    layers: tuple[Layer, ...] = option((), help="Layers that the vectors go through before")
    spectral_weight: float = option(0.1, help="Weight of the spectral distance beside L1", ge=0)
