"""Options of layers that are made of layers."""

from __future__ import annotations

from typing import Literal

import attrs

from helix_kernel import option
from helix_kernel.errors import ArgumentError
from helix_ssm.config._words import D_MODEL
from helix_ssm.config.models import Layer  # noqa: TC001 - options' types are read at run time


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


@attrs.frozen(kw_only=True)
class BidirectionalConfig:
    """One causal layer from start to end, and one back."""

    d_model: int = option(help=D_MODEL, ge=1)
    mixer: Layer = option({"use": "mamba"}, help="Layer of each direction, which must be causal")
    combine: Literal["sum", "concat"] = option("sum", help="Sum of both outputs, or a learnt map of both")
    share: bool = option(False, help="Whether one set of weights serves both directions")


@attrs.frozen(kw_only=True)
class ReversibleConfig:
    """Pairs of layers on two streams, whose activations can be computed back."""

    d_model: int = option(help=D_MODEL, ge=1)
    n_layers: int = option(2, help="Number of pairs", ge=1)
    mixer: Layer = option({"use": "mamba"}, help="Each pair's layer along the sequence")
    channel: Layer = option({"use": "mlp"}, help="Each pair's layer across channels")
    norm: Layer = option({"use": "rms-norm"}, help="Norm before each layer")
    dropout: float = option(
        0.0, help="Probability that an element of a layer's output is dropped", ge=0, lt=1
    )
    recompute: bool = option(True, help="Whether training computes activations back in place of keeping them")
