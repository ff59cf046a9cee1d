"""The options of every layer here, without importing any: what configs are checked against."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import attrs

from helix_kernel import FactoryOf, option

_D_MODEL = "Width of the layer's input and output"


@attrs.frozen(kw_only=True)
class LinearConfig:
    """An affine map of each token."""

    d_model: int = option(help="Width of the input", ge=1)
    d_out: int | None = option(None, help="Width of the output; left out: d_model", ge=1)
    bias: bool = option(True, help="Whether a bias is added")


@attrs.frozen(kw_only=True)
class RMSNormConfig:
    """Root-mean-square normalisation of each token."""

    d_model: int = option(help=_D_MODEL, ge=1)
    eps: float = option(1e-5, help="Added to the mean square", ge=0)


@attrs.frozen(kw_only=True)
class MLPConfig:
    """A feed-forward network with one hidden layer."""

    d_model: int = option(help=_D_MODEL, ge=1)
    d_hidden: int | None = option(
        None, help="Width of the hidden layer; left out: 4 d_model, or 8/3 d_model for swiglu", ge=1
    )
    activation: Literal["silu", "gelu", "swiglu"] = option("swiglu", help="Activation of the hidden layer")
    bias: bool = option(False, help="Whether both maps have biases")


@attrs.frozen(kw_only=True)
class MambaConfig:
    """The selective state-space layer of Gu and Dao (2023)."""

    d_model: int = option(help=_D_MODEL, ge=1)
    d_state: int = option(16, help="States for each inner channel", ge=1)
    d_conv: int = option(4, help="Width of the causal convolution, in tokens", ge=1)
    expand: int = option(2, help="Inner channels for each channel of the model", ge=1)
    dt_rank: int | None = option(None, help="Rank of delta's projection; left out: d_model / 16, up", ge=1)
    dt_min: float = option(1e-3, help="Smallest initial step size delta", gt=0)
    dt_max: float = option(0.1, help="Largest initial step size delta", gt=0)
    conv_bias: bool = option(True, help="Whether the convolution has a bias")
    bias: bool = option(False, help="Whether the input and output maps have biases")


@attrs.frozen(kw_only=True)
class S4DConfig:
    """The diagonal state-space layer of Gu et al. (2022)."""

    d_model: int = option(help=_D_MODEL, ge=1)
    d_state: int = option(64, help="Real states for each channel; even unless init is real", ge=1)
    init: Literal["lin", "inv", "real"] = option("lin", help="Initial A: S4D-Lin, S4D-Inv or S4D-Real")
    dt_min: float = option(1e-3, help="Smallest initial step size", gt=0)
    dt_max: float = option(0.1, help="Largest initial step size", gt=0)


@attrs.frozen(kw_only=True)
class HyenaConfig:
    """The gated long convolution of Poli et al. (2023)."""

    d_model: int = option(help=_D_MODEL, ge=1)
    order: int = option(2, help="Number of gated long convolutions", ge=1)
    d_conv: int = option(3, help="Width of the short convolution, in tokens", ge=1)
    time_scale: float = option(1024.0, help="Tokens over which a filter varies and decays", gt=0)
    n_frequencies: int = option(16, help="Sine and cosine pairs in the filter's positional features", ge=1)
    d_filter: int = option(64, help="Width of the network that makes the filters", ge=1)
    n_filter_layers: int = option(3, help="Hidden layers of that network", ge=1)
    filter_frequency: float = option(1.0, help="Factor inside the network's sine activations", gt=0)


@attrs.frozen(kw_only=True)
class LanguageModelConfig:
    """Token embedding, residual pre-norm blocks of a mixer and an optional channel layer, norm, head."""

    d_model: int = option(help="Width of the residual stream", ge=1)
    n_layers: int = option(help="Number of blocks", ge=1)
    mixer: Annotated[Any, FactoryOf("layer", supplies=("d_model",))] = option(
        help="Layer along the sequence, one in each block"
    )
    channel: Annotated[Any, FactoryOf("layer", supplies=("d_model",))] | None = option(
        None, help="Second layer of each block, across channels; left out: none"
    )
    norm: Annotated[Any, FactoryOf("layer", supplies=("d_model",))] = option(
        {"use": "rms-norm"}, help="Norm before each layer and before the head"
    )
    vocab_size: int = option(256, help="Number of token ids; 256 for bytes", ge=1)
    tie_embeddings: bool = option(True, help="Whether the head uses the embedding's weight")
    dropout: float = option(
        0.0, help="Probability that an element of a layer's output is dropped", ge=0, lt=1
    )
