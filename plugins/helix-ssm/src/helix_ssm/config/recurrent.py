"""Options of the recurrent layers."""

from __future__ import annotations

from typing import Literal

import attrs

from helix_kernel import option
from helix_ssm.config._words import D_MODEL


@attrs.frozen(kw_only=True)
class RNNConfig:
    """torch's nn.LSTM, nn.GRU or nn.RNN."""

    d_model: int = option(help=D_MODEL, ge=1)
    cell: Literal["lstm", "gru", "rnn"] = option("lstm", help="Which recurrent network; rnn: with tanh")
    n_layers: int = option(1, help="Layers on top of one another", ge=1)
    d_hidden: int | None = option(None, help="Width of each; left out: d_model", ge=1)
    bias: bool = option(True, help="Whether the cells and the output map have biases")


@attrs.frozen(kw_only=True)
class MinGRUConfig:
    """The minimal gated recurrent unit of Feng et al. (2024)."""

    d_model: int = option(help=D_MODEL, ge=1)
    expand: int = option(2, help="States for each channel of the model", ge=1)
    d_conv: int = option(4, help="Width of the causal convolution before it, in tokens; 0 for none", ge=0)
    candidate: Literal["positive", "plain"] = option(
        "positive", help="Candidate states: through the paper's positive g, or as they are"
    )


@attrs.frozen(kw_only=True)
class RGLRUConfig:
    """The recurrent block of De et al. (2024), Griffin."""

    d_model: int = option(help=D_MODEL, ge=1)
    d_rnn: int | None = option(
        None, help="States, a multiple of n_heads; left out: 4/3 d_model, up to the next one", ge=1
    )
    n_heads: int = option(16, help="Blocks of the gates' block-diagonal weights", ge=1)
    d_conv: int = option(4, help="Width of the causal convolution, in tokens", ge=1)
    first_input: Literal["scaled", "whole"] = option(
        "scaled", help="A sequence's first input: times sqrt(1 - a^2) as any, or as it is (RecurrentGemma)"
    )
