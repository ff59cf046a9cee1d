"""Options of the ways to fuse."""

from __future__ import annotations

from typing import Annotated, Any

import attrs

from helix_kernel import FactoryOf, option

Layer = Annotated[Any, FactoryOf("layer", supplies=("d_model",))]
"""A layer that the fusion builds in the width of the tokens."""


@attrs.frozen(kw_only=True)
class FusionConfig:
    """What every fusion is told."""

    d_model: int = option(help="Width of the tokens", ge=1)
    d_out: int = option(help="Width of the fused vectors", ge=1)
    parts: tuple[str, ...] = option(help="Names of what is fused")


@attrs.frozen(kw_only=True)
class EarlyConcatConfig(FusionConfig):
    """All tokens in one sequence."""

    layers: tuple[Layer, ...] = option(
        ({"use": "mamba"},), help="Layers that the sequence goes through, each residual after a norm"
    )


@attrs.frozen(kw_only=True)
class LateLogitsConfig(FusionConfig):
    """Each part answers on its own."""

    weighted: bool = option(False, help="Whether the weights of the parts' answers are learned")


@attrs.frozen(kw_only=True)
class GatedConfig(FusionConfig):
    """Gates weigh the parts."""


@attrs.frozen(kw_only=True)
class CrossAttentionConfig(FusionConfig):
    """Each part's tokens look at those of the others."""

    n_heads: int = option(4, help="Heads; a divisor of d_model", ge=1)
    n_layers: int = option(1, help="How often the parts look at one another", ge=1)


@attrs.frozen(kw_only=True)
class InterleavedScanConfig(FusionConfig):
    """Tokens of all parts take turns in one scan."""

    layer: Layer = option({"use": "mamba"}, help="What scans: a layer that does not look ahead")
    bidirectional: bool = option(True, help="Whether a second one scans from the end")


@attrs.frozen(kw_only=True)
class LowRankBilinearConfig(FusionConfig):
    """Products of projections of the parts."""

    rank: int = option(8, help="Rank of the tensor that the product stands for", ge=1)
