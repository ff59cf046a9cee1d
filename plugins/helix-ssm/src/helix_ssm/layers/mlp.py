"""Layers that treat each token on its own: an affine map, and a feed-forward network."""

from __future__ import annotations

import math
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional as F

from helix_kernel.errors import ArgumentError, did_you_mean
from helix_ssm.layers.protocol import check_at_least, check_chunk

Activation = Literal["silu", "gelu", "swiglu"]


class Linear(nn.Linear):
    """An affine map of each token.

    Args:
        d_model: Width of the input.
        d_out: Width of the output; None means d_model.
        bias: Whether a bias is added.

    Raises:
        ArgumentError: A width is below 1.
    """

    def __init__(self, d_model: int, *, d_out: int | None = None, bias: bool = True) -> None:
        d_out = d_model if d_out is None else d_out
        check_at_least("linear", "d_model", d_model, 1)
        check_at_least("linear", "d_out", d_out, 1)
        super().__init__(d_model, d_out, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, L, d_model) to (B, L, d_out)."""
        check_chunk("linear", x, self.in_features)
        return super().forward(x)


class MLP(nn.Module):
    """Feed-forward network with one hidden layer: out_proj(activation(in_proj(x))).

    With "swiglu" (Shazeer 2020, arXiv:2002.05202, equation 6) in_proj makes two halves, and the hidden
    layer is silu(first) * second.

    Args:
        d_model: Width D of input and output.
        d_hidden: Width of the hidden layer. None means 4 d_model; for "swiglu" 8/3 d_model, rounded up to
            a multiple of 8, which keeps the number of weights (section 2 of the paper).
        activation: "silu", "gelu" or "swiglu".
        bias: Whether both maps have biases.

    Raises:
        ArgumentError: A width is below 1, or there is no such activation.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_hidden: int | None = None,
        activation: Activation = "swiglu",
        bias: bool = False,
    ) -> None:
        super().__init__()
        _check_activation(activation)
        self.gated = activation == "swiglu"
        if d_hidden is None:
            d_hidden = 8 * math.ceil(d_model / 3) if self.gated else 4 * d_model
        check_at_least("mlp", "d_model", d_model, 1)
        check_at_least("mlp", "d_hidden", d_hidden, 1)
        self.d_model, self.activation = d_model, activation
        self.in_proj = nn.Linear(d_model, (2 if self.gated else 1) * d_hidden, bias=bias)
        self.out_proj = nn.Linear(d_hidden, d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, L, D) to (B, L, D), each token on its own."""
        check_chunk("mlp", x, self.d_model)
        hidden = self.in_proj(x)
        if self.gated:
            gate, value = hidden.chunk(2, dim=-1)
            hidden = F.silu(gate) * value
        else:
            hidden = F.silu(hidden) if self.activation == "silu" else F.gelu(hidden)
        y: Tensor = self.out_proj(hidden)
        return y


def _check_activation(activation: str) -> None:
    allowed = get_args(Activation)
    if activation not in allowed:
        raise ArgumentError(
            f"mlp: activation is {activation!r}, allowed are {', '.join(map(repr, allowed))}."
            f"{did_you_mean(activation, allowed)}"
        )
