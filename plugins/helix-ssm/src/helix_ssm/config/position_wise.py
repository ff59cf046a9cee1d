"""Options of the layers that treat each token on its own."""

from __future__ import annotations

from typing import Literal

import attrs

from helix_kernel import option
from helix_ssm.config._words import D_MODEL


@attrs.frozen(kw_only=True)
class LinearConfig:
    """An affine map of each token."""

    d_model: int = option(help="Width of the input", ge=1)
    d_out: int | None = option(None, help="Width of the output; left out: d_model", ge=1)
    bias: bool = option(True, help="Whether a bias is added")


@attrs.frozen(kw_only=True)
class RMSNormConfig:
    """Root-mean-square normalisation of each token."""

    d_model: int = option(help=D_MODEL, ge=1)
    eps: float = option(1e-5, help="Added to the mean square", ge=0)


@attrs.frozen(kw_only=True)
class LayerNormConfig:
    """Normalisation of each token to mean zero and variance one."""

    d_model: int = option(help=D_MODEL, ge=1)
    n_groups: int = option(1, help="Groups of channels that are normalised apart; divides d_model", ge=1)
    eps: float = option(1e-5, help="Added to the variance", ge=0)
    bias: bool = option(True, help="Whether a learnt bias is added")


@attrs.frozen(kw_only=True)
class MLPConfig:
    """A feed-forward network with one hidden layer."""

    d_model: int = option(help=D_MODEL, ge=1)
    d_hidden: int | None = option(
        None, help="Width of the hidden layer; left out: 4 d_model, or 8/3 if gated", ge=1
    )
    activation: Literal["silu", "gelu", "relu2", "swiglu", "geglu"] = option(
        "swiglu", help="Activation of the hidden layer; relu2 is the square of ReLU"
    )
    bias: bool = option(False, help="Whether both maps have biases")
