"""Options of the layer that reads a memory."""

from __future__ import annotations

import attrs

from helix_kernel import option


@attrs.frozen(kw_only=True)
class MemoryLayerConfig:
    """Attention over the k nearest of all earlier positions, behind a gate."""

    d_model: int = option(help="Width of the layer's input and output", ge=1)
    n_heads: int = option(1, help="Number of heads", ge=1)
    head_dim: int | None = option(None, help="Width of a head; left out: d_model / n_heads", ge=1)
    k: int = option(32, help="How many earlier positions a head reads", ge=1)
    shift: int = option(
        1, help="How far before a position its key is made, so that a context finds what followed it", ge=0
    )
    window: int | None = option(
        None, help="How many positions are remembered, the current one included; left out: all", ge=1
    )
    approximate_above: int | None = option(
        None,
        help="Positions that a stream may have seen before a graph finds those to read; left out: never",
        ge=1,
    )
