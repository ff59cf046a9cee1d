"""The activations of feed-forward networks, plain and gated."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, get_args

from torch.nn import functional as F

from helix_ssm.layers._check import check_choice

if TYPE_CHECKING:
    from torch import Tensor

Activation = Literal["silu", "gelu", "relu2", "swiglu", "geglu"]


def activate(hidden: Tensor, activation: Activation) -> Tensor:
    """Return the activated hidden layer (..., d_hidden).

    Gated ones take (..., 2 d_hidden) and return function(first half) * second half: "swiglu" and "geglu"
    of Shazeer (2020), arXiv:2002.05202, equation 6. "relu2" is max(x, 0)² of Primer (So et al. 2021,
    arXiv:2109.08668, section 3); "gelu" and "geglu" take the exact normal distribution.
    """
    if is_gated(activation):
        hidden, value = hidden.chunk(2, dim=-1)
        return _function(hidden, activation) * value
    return _function(hidden, activation)


def is_gated(activation: Activation) -> bool:
    """Whether the activation takes two halves, so that the map before it makes 2 d_hidden channels."""
    return activation in ("swiglu", "geglu")


def default_width(d_model: int, activation: Activation) -> int:
    """Return the customary d_hidden: 4 d_model, or 8/3 d_model up to a multiple of 8 for gated ones.

    The factor 2/3 keeps the number of weights (section 2 of Shazeer's paper).
    """
    return 8 * math.ceil(d_model / 3) if is_gated(activation) else 4 * d_model


def check_activation(layer: str, activation: str) -> None:
    """Raise `ArgumentError` where there is no such activation."""
    check_choice(layer, "activation", activation, get_args(Activation))


def _function(x: Tensor, activation: Activation) -> Tensor:
    if activation == "relu2":
        return F.relu(x).square()
    return F.silu(x) if activation in ("silu", "swiglu") else F.gelu(x)
