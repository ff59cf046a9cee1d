"""Options of the convolutional layers."""

from __future__ import annotations

from typing import Literal

import attrs

from helix_kernel import option
from helix_ssm.config._words import D_MODEL


@attrs.frozen(kw_only=True)
class HyenaConfig:
    """The gated long convolution of Poli et al. (2023)."""

    d_model: int = option(help=D_MODEL, ge=1)
    order: int = option(2, help="Number of gated long convolutions", ge=1)
    d_conv: int = option(3, help="Width of the short convolution, in tokens", ge=1)
    time_scale: float = option(1024.0, help="Tokens over which a filter varies and decays", gt=0)
    n_frequencies: int = option(16, help="Sine and cosine pairs in the filter's positional features", ge=1)
    d_filter: int = option(64, help="Width of the network that makes the filters", ge=1)
    n_filter_layers: int = option(3, help="Hidden layers of that network", ge=1)
    filter_frequency: float = option(1.0, help="Factor inside the network's sine activations", gt=0)
    filter: Literal["implicit", "modal"] = option(
        "implicit", help="implicit: made by the network; modal: sums of exponentials, in constant memory"
    )
    d_state: int = option(32, help="Real states of each channel of a modal filter, even", ge=2)


@attrs.frozen(kw_only=True)
class MultiHybridConfig:
    """The gated convolutions of Ku et al. (2025), StripedHyena 2."""

    d_model: int = option(help=D_MODEL, ge=1)
    operator: Literal["short-explicit", "medium-regularized", "long-implicit"] = option(
        "medium-regularized", help="Inner convolution: a few taps, about 128, or the whole past"
    )
    filter_len: int | None = option(
        None, help="Taps of an explicit filter; left out: 7 for short, 128 for medium", ge=1
    )
    d_state: int = option(16, help="Modes of each implicit filter", ge=1)
    n_groups: int | None = option(
        None,
        help="Different filters; left out: one for each 16 channels, or for each channel if implicit",
        ge=1,
    )
    d_conv: int = option(3, help="Width of the short convolutions of q, k and v, in tokens", ge=1)


@attrs.frozen(kw_only=True)
class ConvConfig:
    """torch's nn.Conv1d, causal."""

    d_model: int = option(help=D_MODEL, ge=1)
    kernel_size: int = option(4, help="Taps", ge=1)
    dilation: int = option(1, help="Tokens from one tap to the next", ge=1)
    depthwise: bool = option(False, help="Whether each channel is convolved on its own")
    bias: bool = option(True, help="Whether a bias is added")
