"""Options of the models, which are layers made of layers."""

from __future__ import annotations

from typing import Annotated, Any

import attrs

from helix_kernel import FactoryOf, option


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
