"""Options of the models, which are layers made of layers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import attrs

from helix_kernel import FactoryOf, option
from helix_kernel.errors import ArgumentError

Layer = Annotated[Any, FactoryOf("layer", supplies=("d_model",))]
"""A layer that the model builds, once or more, in its own width."""

Memory = Annotated[Any, FactoryOf("memory_tier", supplies=("d_model", "vocab_size"))]
"""A memory that the model builds for its own features and ids."""


@attrs.frozen(kw_only=True)
class BlocksConfig:
    """What every model has that stacks residual blocks on an embedding."""

    d_model: int = option(help="Width of the residual stream", ge=1)
    n_layers: int | None = option(None, help="Number of blocks; left out: one of each in the pattern", ge=1)
    mixer: Layer | None = option(None, help="Layer along the sequence, one in each block")
    pattern: tuple[Layer, ...] | None = option(
        None, help="Instead of mixer: the blocks' layers along the sequence, which take turns"
    )
    channel: Layer | None = option(None, help="Second layer of each block, across channels; left out: none")
    norm: Layer = option({"use": "rms-norm"}, help="Norm before each layer and before the head")
    vocab_size: int = option(256, help="Number of token ids; 256 for bytes", ge=1)
    dropout: float = option(
        0.0, help="Probability that an element of a layer's output is dropped", ge=0, lt=1
    )

    def __attrs_post_init__(self) -> None:
        check_pattern(self.n_layers, self.mixer, self.pattern)


@attrs.frozen(kw_only=True)
class LanguageModelConfig(BlocksConfig):
    """Token embedding, residual pre-norm blocks of a mixer and an optional channel layer, norm, head."""

    tie_embeddings: bool = option(True, help="Whether the head uses the embedding's weight")
    memory: Memory | None = option(
        None, help="What is remembered and has a say in what comes next, such as hierarchy; left out: nothing"
    )


@attrs.frozen(kw_only=True)
class SpanInfillerConfig(BlocksConfig):
    """Bidirectional encoder over ids with blanks; the id of a blank is vocab_size."""

    tie_embeddings: bool = option(True, help="Whether the head uses the tokens' embeddings")


@attrs.frozen(kw_only=True)
class ClassifierConfig(BlocksConfig):
    """Encoder, pooling and a head of classes."""

    n_classes: int = option(2, help="Number of classes", ge=1)
    pooling: Literal["last", "mean", "max", "attention"] = option(
        "mean", help="How a sequence's vectors become one"
    )


def check_pattern(n_layers: int | None, mixer: object, pattern: tuple[object, ...] | None) -> None:
    """Check that blocks have their mixers.

    Raises:
        ArgumentError: Not exactly one of mixer and pattern is given, n_layers is missing, or it cuts the
            pattern short.
    """
    if (mixer is None) == (not pattern):
        what = "both are given" if pattern else "neither is given"
        raise ArgumentError(f"one of mixer and pattern is needed, and {what}")
    if n_layers is None and mixer is not None:
        raise ArgumentError("n_layers is missing; only a pattern has a length of its own")
    if n_layers is not None and n_layers < len(pattern or ()):
        raise ArgumentError(
            f"n_layers is {n_layers}, allowed is >= {len(pattern or ())}, the pattern's length"
        )
