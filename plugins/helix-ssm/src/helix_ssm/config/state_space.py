"""Options of the state-space layers."""

from __future__ import annotations

from typing import Literal

import attrs

from helix_kernel import option
from helix_ssm.config._words import D_MODEL


@attrs.frozen(kw_only=True)
class MambaConfig:
    """The selective state-space layer of Gu and Dao (2023)."""

    d_model: int = option(help=D_MODEL, ge=1)
    d_state: int = option(16, help="States for each inner channel", ge=1)
    d_conv: int = option(4, help="Width of the causal convolution, in tokens", ge=1)
    expand: int = option(2, help="Inner channels for each channel of the model", ge=1)
    dt_rank: int | None = option(None, help="Rank of delta's projection; left out: d_model / 16, up", ge=1)
    dt_min: float = option(1e-3, help="Smallest initial step size delta", gt=0)
    dt_max: float = option(0.1, help="Largest initial step size delta", gt=0)
    conv_bias: bool = option(True, help="Whether the convolution has a bias")
    bias: bool = option(False, help="Whether the input and output maps have biases")
    bcdt_rms_eps: float | None = option(
        None, help="Added to the mean squares by which B, C and dt are scaled; left out: no scaling", ge=0
    )


@attrs.frozen(kw_only=True)
class Mamba2Config:
    """The state-space duality layer of Dao and Gu (2024)."""

    d_model: int = option(help=D_MODEL, ge=1)
    d_state: int = option(128, help="States for each inner channel", ge=1)
    d_conv: int = option(4, help="Width of the causal convolution, in tokens", ge=1)
    expand: int = option(2, help="Inner channels for each channel of the model", ge=1)
    head_dim: int | None = option(
        None, help="Channels of a head; left out: the most, up to 64, that divide a group", ge=1
    )
    n_groups: int = option(1, help="Groups of heads, each with a B and a C of its own", ge=1)
    dt_min: float = option(1e-3, help="Smallest initial step size delta", gt=0)
    dt_max: float = option(0.1, help="Largest initial step size delta", gt=0)
    dt_init_floor: float = option(1e-4, help="What smaller initial step sizes are raised to", ge=0)
    dt_limit: tuple[float, float] | None = option(
        None, help="Smallest and largest step size at any time; left out: any", ge=0
    )
    A_init_range: tuple[float, float] = option(
        (1.0, 16.0), help="Smallest and largest initial -A, which begins uniform", gt=0
    )
    conv_bias: bool = option(True, help="Whether the convolution has a bias")
    bias: bool = option(False, help="Whether the input and output maps have biases")
    norm_eps: float = option(1e-5, help="Added to the mean square in the norm before the output map", ge=0)


@attrs.frozen(kw_only=True)
class Mamba3Config:
    """The state-space layer of Lahoti, Li, Chen, Wang et al. (2026), Mamba-3."""

    d_model: int = option(help=D_MODEL, ge=1)
    d_state: int = option(128, help="States for each inner channel, even", ge=1)
    expand: int = option(2, help="Inner channels for each channel of the model", ge=1)
    head_dim: int | None = option(
        None, help="Channels of a head; left out: the most, up to 64, that divide a group", ge=1
    )
    n_groups: int = option(1, help="Groups of heads, each with a B and a C of its own", ge=1)
    mimo_rank: int | None = option(
        None, help="Inputs and outputs of a head and token; left out: one, without mimo weights", ge=1
    )
    rope_fraction: float = option(0.5, help="Part of the states that turns", gt=0, le=1)
    dt_min: float = option(1e-3, help="Smallest initial step size dt", gt=0)
    dt_max: float = option(0.1, help="Largest initial step size dt", gt=0)
    dt_init_floor: float = option(1e-4, help="What smaller initial step sizes are raised to", ge=0)
    A_floor: float = option(1e-4, help="Smallest decay rate -A", ge=0)
    A_activation: Literal["heavy-tail", "softplus"] = option(
        "heavy-tail", help="What makes the decay rate -A positive"
    )
    outproj_norm: bool = option(False, help="Whether an RMS norm in each head comes before the gate")


@attrs.frozen(kw_only=True)
class S4Config:
    """The structured state-space layer of Gu et al. (2021)."""

    d_model: int = option(help=D_MODEL, ge=1)
    d_state: int = option(64, help="Real states for each channel, even", ge=1)
    dt_min: float = option(1e-3, help="Smallest initial step size", gt=0)
    dt_max: float = option(0.1, help="Largest initial step size", gt=0)


@attrs.frozen(kw_only=True)
class S4DConfig:
    """The diagonal state-space layer of Gu et al. (2022)."""

    d_model: int = option(help=D_MODEL, ge=1)
    d_state: int = option(64, help="Real states for each channel; even unless init is real", ge=1)
    init: Literal["lin", "inv", "legs", "real"] = option(
        "lin", help="Initial A: S4D-Lin, S4D-Inv, S4D-LegS or S4D-Real"
    )
    discretization: Literal["zoh", "bilinear"] = option(
        "zoh", help="From continuous to discrete time: zero-order hold or the bilinear rule"
    )
    dt_min: float = option(1e-3, help="Smallest initial step size", gt=0)
    dt_max: float = option(0.1, help="Largest initial step size", gt=0)


@attrs.frozen(kw_only=True)
class S5Config:
    """The state-space layer with one system for all channels of Smith et al. (2023)."""

    d_model: int = option(help=D_MODEL, ge=1)
    d_state: int = option(64, help="Real states of the system, a multiple of 2 n_blocks", ge=2)
    n_blocks: int = option(1, help="Blocks of the initial A, each a HiPPO-N matrix", ge=1)
    dt_min: float = option(1e-3, help="Smallest initial step size", gt=0)
    dt_max: float = option(0.1, help="Largest initial step size", gt=0)
