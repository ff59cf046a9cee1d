"""Options of layers that are made of layers."""

from __future__ import annotations

from typing import Literal

import attrs

from helix_kernel import option
from helix_kernel.errors import ArgumentError
from helix_ssm.config._words import D_MODEL


@attrs.frozen(kw_only=True)
class MoEConfig:
    """A sparse mixture of feed-forward networks."""

    d_model: int = option(help=D_MODEL, ge=1)
    n_experts: int = option(8, help="Number of experts", ge=1)
    top_k: int = option(2, help="Experts that each token goes to", ge=1)
    d_hidden: int | None = option(
        None, help="Width of an expert's hidden layer; left out: 4 d_model, or 8/3 if gated", ge=1
    )
    activation: Literal["silu", "gelu", "relu2", "swiglu", "geglu"] = option(
        "swiglu", help="Activation of the experts' hidden layers; relu2 is the square of ReLU"
    )
    renormalise: bool = option(True, help="Whether a token's weights are scaled to sum to one")
    balance_weight: float = option(0.01, help="Factor of the loss that keeps experts evenly used", ge=0)
    z_weight: float = option(0.001, help="Factor of the loss that keeps the router's logits small", ge=0)

    def __attrs_post_init__(self) -> None:
        """Check what single options cannot tell.

        Raises:
            ArgumentError: top_k is above n_experts, or top_k = 1 is renormalised.
        """
        if self.top_k > self.n_experts:
            raise ArgumentError(f"top_k is {self.top_k}, allowed is <= n_experts={self.n_experts}")
        if self.top_k == 1 and self.renormalise:
            raise ArgumentError(
                "renormalise is True with top_k=1, which makes every weight 1: allowed is False"
            )
