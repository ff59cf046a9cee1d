"""Options of the models."""

from __future__ import annotations

from typing import Annotated, Any

import attrs

from helix_kernel import FactoryOf, option
from helix_kernel.errors import ArgumentError, did_you_mean

Encoder = Annotated[Any, FactoryOf("encoder", supplies=("d_model",))]
"""An encoder that the model builds in its own width."""

Decoder = Annotated[Any, FactoryOf("decoder", supplies=("d_model",))]
"""A decoder that the model builds in its own width."""

Fusion = Annotated[Any, FactoryOf("fusion", supplies=("d_model", "d_out", "parts"))]
"""A fusion that the model builds for its own parts."""

Alignment = Annotated[Any, FactoryOf("alignment", supplies=("d_model",))]
"""An alignment that the model builds in its own width."""

Layer = Annotated[Any, FactoryOf("layer", supplies=("d_model",))]
"""A layer that the model builds in its own width."""

_ENCODERS = "for each part of the data, what makes tokens of it: [model.encoders.PART]"
_DROP = "how often training hides a part that is there, so that the others must do; one always stays"


@attrs.frozen(kw_only=True)
class MultimodalClassifierConfig:
    """Encoders, a fusion, and a class."""

    d_model: int = option(help="Width of the tokens", ge=1)
    encoders: dict[str, Encoder] = option(help=_ENCODERS)
    n_classes: int = option(help="Number of classes", ge=2)
    fusion: Fusion = option({"use": "late-logits"}, help="How the parts become one answer")
    drop: float = option(0.0, help=_DROP, ge=0, lt=1)


@attrs.frozen(kw_only=True)
class RetrieverConfig:
    """Two sides whose vectors, or tokens, are alike where they are about the same."""

    d_model: int = option(help="Width of the tokens, and of vectors", ge=1)
    encoders: dict[str, Encoder] = option(help=_ENCODERS)
    query: tuple[str, ...] = option(help="parts that the one side is made of")
    target: tuple[str, ...] = option(help="parts that the other side is made of")
    fusion: Fusion | None = option(
        None, help="how the parts of a side become one vector, for an alignment that compares vectors"
    )
    alignment: Alignment = option({"use": "info-nce"}, help="how the two sides are compared")
    drop: float = option(0.0, help=_DROP, ge=0, lt=1)

    def __attrs_post_init__(self) -> None:
        """Check what single options cannot tell.

        Raises:
            ArgumentError: A side is empty, both share a part, or one is unknown.
        """
        for side, parts in (("query", self.query), ("target", self.target)):
            if not parts:
                raise ArgumentError(f"{side} is empty; name one part at least")
        if both := sorted(set(self.query) & set(self.target)):
            raise ArgumentError(
                f"target names {both[0]!r}, which query names too; a part is on one side only"
            )


@attrs.frozen(kw_only=True)
class CaptionerConfig:
    """Tokens of all parts, and then a text, byte by byte."""

    d_model: int = option(help="Width of the tokens", ge=1)
    encoders: dict[str, Encoder] = option(help=_ENCODERS)
    target: str = option(help="the part that holds the text")
    layers: tuple[Layer, ...] = option(
        ({"use": "mamba"}, {"use": "mamba"}),
        help="layers that read the tokens and then the text; causal ones",
    )
    drop: float = option(0.0, help=_DROP, ge=0, lt=1)


@attrs.frozen(kw_only=True)
class ReconstructorConfig:
    """One part through a code of few tokens and back."""

    d_model: int = option(help="Width of the tokens", ge=1)
    part: str = option(help="the part that is coded")
    encoder: Encoder = option(help="what makes tokens of it")
    decoder: Decoder = option(help="what makes it of tokens")
    layers: tuple[Layer, ...] = option((), help="layers between the two")
    n_tokens: int | None = option(
        None, help="tokens of the code, each the mean of a stretch; left out: as many as there are", ge=1
    )


def check_parts(option_: str, given: tuple[str, ...], known: tuple[str, ...]) -> None:
    """Raise `ArgumentError` where an option names a part that there is not."""
    for name in given:
        if name not in known:
            raise ArgumentError(
                f"{option_} names the part {name!r}, allowed is one of "
                f"{list(known)}.{did_you_mean(name, known)}"
            )
