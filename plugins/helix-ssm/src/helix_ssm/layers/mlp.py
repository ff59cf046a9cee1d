"""Layers that treat each token on its own: an affine map, and a feed-forward network."""

from __future__ import annotations

from torch import Tensor, nn

from helix_ssm.layers.activation import Activation, activate, check_activation, default_width, is_gated
from helix_ssm.layers.protocol import check_at_least, check_chunk


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

    With the gated "swiglu" and "geglu" (Shazeer 2020, arXiv:2002.05202, equation 6) in_proj makes two
    halves, and the hidden layer is function(first) * second.

    Args:
        d_model: Width D of input and output.
        d_hidden: Width of the hidden layer. None means 4 d_model; for gated ones 8/3 d_model, rounded up to
            a multiple of 8, which keeps the number of weights (section 2 of the paper).
        activation: "silu", "gelu", "relu2" (squared ReLU), "swiglu" or "geglu".
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
        check_activation("mlp", activation)
        d_hidden = default_width(d_model, activation) if d_hidden is None else d_hidden
        check_at_least("mlp", "d_model", d_model, 1)
        check_at_least("mlp", "d_hidden", d_hidden, 1)
        self.d_model, self.activation = d_model, activation
        self.in_proj = nn.Linear(d_model, (2 if is_gated(activation) else 1) * d_hidden, bias=bias)
        self.out_proj = nn.Linear(d_hidden, d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, L, D) to (B, L, D), each token on its own."""
        check_chunk("mlp", x, self.d_model)
        y: Tensor = self.out_proj(activate(self.in_proj(x), self.activation))
        return y
