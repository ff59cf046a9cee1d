"""Options of the linear-attention layers, whose state is a matrix in each head."""

from __future__ import annotations

import attrs

from helix_kernel import option
from helix_ssm.config._words import D_MODEL


@attrs.frozen(kw_only=True)
class GatedDeltaNetConfig:
    """The gated delta rule with short convolutions of Yang, Kautz and Hatamizadeh (2024)."""

    d_model: int = option(help=D_MODEL, ge=1)
    n_heads: int | None = option(None, help="Number of heads; left out: d_model / head_dim", ge=1)
    head_dim: int | None = option(
        None,
        help="Width of a head's keys; left out: d_model / n_heads, or the widest to 64 that divides d_model",
        ge=1,
    )
    expand_v: float = option(2.0, help="Width of a head's values, in units of head_dim", gt=0)
    d_conv: int = option(4, help="Width of the causal convolutions, in tokens", ge=1)
    gate: bool = option(True, help="Whether a gate on the output follows the norm")
    allow_neg_eigval: bool = option(
        False, help="Whether a write may turn what its key held around: beta to 2 in place of 1"
    )


@attrs.frozen(kw_only=True)
class GLAConfig:
    """The gated linear attention of Yang et al. (2023)."""

    d_model: int = option(help=D_MODEL, ge=1)
    n_heads: int = option(4, help="Number of heads", ge=1)
    expand_k: float = option(0.5, help="Width of all queries and keys, in units of d_model", gt=0)
    expand_v: float = option(1.0, help="Width of all values, in units of d_model", gt=0)
    gate_low_rank_dim: int = option(16, help="Rank of the map to the gates", ge=1)
    gate_logit_normalizer: float = option(
        16.0, help="Divides the gates' logarithms: the larger, the longer the memory", gt=0
    )


@attrs.frozen(kw_only=True)
class RWKV7Config:
    """The time mix of RWKV-7, by Peng et al. (2025)."""

    d_model: int = option(help=D_MODEL, ge=1)
    head_dim: int | None = option(
        None, help="Width of a head; left out: the widest up to 64 that divides d_model", ge=1
    )
    decay_low_rank_dim: int | None = option(
        None, help="Rank of the map to the decay; left out: about 2.5 sqrt(d_model)", ge=1
    )
    a_low_rank_dim: int | None = option(
        None, help="Rank of the map to the learning rate; left out: about 2.5 sqrt(d_model)", ge=1
    )
    gate_low_rank_dim: int | None = option(
        None, help="Rank of the map to the gate; left out: about 5 sqrt(d_model)", ge=1
    )


@attrs.frozen(kw_only=True)
class RWKV7ChannelMixConfig:
    """The channel mix of RWKV-7, by Peng et al. (2025)."""

    d_model: int = option(help=D_MODEL, ge=1)
    d_hidden: int | None = option(None, help="Width of the hidden layer; left out: 4 d_model", ge=1)
