"""Options of the quantizers and of the model that trains them. Imports no torch and no numpy."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import attrs

from helix_kernel import FactoryOf, option
from helix_kernel.errors import ArgumentError

Layer = Annotated[Any, FactoryOf("layer", supplies=("d_model",))]
"""A layer that the model builds in its own width."""

GradientEstimator = Literal["rotation", "straight-through"]

MIN_LEVELS, MAX_LEVELS = 3, 256
MAX_FSQ_CODES = 1 << 20

_D_MODEL = "Width of input and output"
_USE_BATCHES = "Training batches over which the use of codes is measured"


@attrs.frozen(kw_only=True)
class VQConfig:
    """Each position becomes the nearest of the vectors in one codebook."""

    d_model: int = option(help=_D_MODEL, ge=1)
    n_codes: int = option(512, help="Vectors in a codebook", ge=2)
    codebook_dim: int | None = option(
        8,
        help="Width of the codebook's vectors, reached by a learnt map; left out by none: d_model, no map",
        ge=1,
    )
    decay: float = option(
        0.99, help="How much of a code's running mean a batch leaves, as a factor", gt=0, lt=1
    )
    kmeans_init: bool = option(True, help="Whether the first training batch's k-means are the first codes")
    replace_after: int = option(
        100, help="Batches without use after which a rare code moves to a vector of the batch; 0: never", ge=0
    )
    commitment_weight: float = option(
        0.25, help="Factor of the squared distance to the code, added to the loss", ge=0
    )
    gradient: GradientEstimator = option("rotation", help="How the gradient passes the choice of a code")
    use_batches: int = option(100, help=_USE_BATCHES, ge=1)


@attrs.frozen(kw_only=True)
class RVQConfig(VQConfig):
    """Each position becomes a sum of vectors, each the nearest to what those before it left over."""

    n_quantizers: int = option(4, help="Codebooks, each for what those before it left over", ge=1)


@attrs.frozen(kw_only=True)
class FSQConfig:
    """Each position becomes a point of a small grid."""

    d_model: int = option(help=_D_MODEL, ge=1)
    levels: tuple[int, ...] = option(
        (8, 5, 5, 5), help="Values that each of the grid's dimensions has", ge=MIN_LEVELS, le=MAX_LEVELS
    )
    use_batches: int = option(100, help=_USE_BATCHES, ge=1)

    def __attrs_post_init__(self) -> None:
        check_levels(self.levels)


@attrs.frozen(kw_only=True)
class QuantisedAutoencoderConfig:
    """Bytes to codes and back: patches, residual layers, a quantizer, residual layers, patches."""

    d_model: int = option(help="Width of the residual streams", ge=1)
    patch: int = option(1, help="Bytes that become one position; divides the length of a row", ge=1)
    encoder: tuple[Layer, ...] = option((), help="Layers before the quantizer, each with norm and residual")
    quantizer: Layer = option({"use": "vq"}, help="Layer that has encode and decode, such as vq, rvq or fsq")
    decoder: tuple[Layer, ...] = option((), help="Layers after the quantizer, each with norm and residual")


def check_levels(levels: tuple[int, ...]) -> None:
    """Check the levels of a grid.

    Raises:
        ArgumentError: There are none, or the grid has too many points to count.
    """
    if not levels:
        raise ArgumentError("levels is empty, allowed is at least one number, such as [8, 5, 5, 5]")
    outside = [level for level in levels if not MIN_LEVELS <= level <= MAX_LEVELS]
    if outside:
        raise ArgumentError(f"levels holds {outside[0]}, allowed is >= {MIN_LEVELS} and <= {MAX_LEVELS}")
    if math.prod(levels) > MAX_FSQ_CODES:
        raise ArgumentError(
            f"levels is {list(levels)}, which makes {math.prod(levels):,} codes, "
            f"allowed is <= {MAX_FSQ_CODES:,}"
        )
