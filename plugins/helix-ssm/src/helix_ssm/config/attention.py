"""Options of attention."""

from __future__ import annotations

from typing import Literal

import attrs

from helix_kernel import option
from helix_ssm.config._words import D_MODEL


@attrs.frozen(kw_only=True)
class AttentionConfig:
    """Softmax attention with grouped queries, rotary positions and an optional sliding window."""

    d_model: int = option(help=D_MODEL, ge=1)
    n_heads: int | None = option(None, help="Query heads; left out: d_model / head_dim", ge=1)
    n_kv_heads: int | None = option(None, help="Key and value heads; left out: n_heads", ge=1)
    head_dim: int | None = option(
        None,
        help="Width of a head; left out: d_model / n_heads, or the even divisor of d_model up to 64",
        ge=1,
    )
    causal: bool = option(True, help="Whether a token sees none after it; an encoder's does")
    window: int | None = option(
        None, help="How many tokens a token sees, itself included; left out: all", ge=1
    )
    positions: Literal["rotary", "none"] = option("rotary", help="How tokens know their positions")
    rope_theta: float = option(10000.0, help="Base of the rotary frequencies", gt=0)
    qk_norm: bool = option(False, help="Whether queries and keys are normalised before they are rotated")
    bias: bool = option(False, help="Whether the four maps have biases")
