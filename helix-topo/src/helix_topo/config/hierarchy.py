"""Options of the hierarchy of tiers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import attrs

from helix_kernel import FactoryOf, option

Mixture = Literal["linear", "geometric"]
Reading = Literal["batch", "stream"]


@attrs.frozen(kw_only=True)
class HierarchyConfig:
    """All tiers as one: what is found where and why, mixed into a model's predictions."""

    d_model: int | None = option(
        None, help="Width of the model's features; left out for a tier of its own, by keys of symbols", ge=1
    )
    vocab_size: int = option(256, help="Number of the model's ids; 256 for bytes", ge=2, le=65_536)
    motifs: Annotated[Any, FactoryOf("memory_tier", supplies=("vocab_size",))] = option(
        {"use": "motifs"}, help="Tier M0: what followed each run of symbols"
    )
    cycles: Annotated[Any, FactoryOf("memory_tier", supplies=("below",))] | None = option(
        None, help="Tier M1, such as cycles: which motifs follow one another; left out: none"
    )
    cores: Annotated[Any, FactoryOf("memory_tier", supplies=("d_key", "d_value"))] | None = option(
        None, help="Tier M2, such as stable-cores, above cycles; left out: none"
    )
    vectors: Annotated[Any, FactoryOf("memory_tier", supplies=("d_key", "d_value"))] | None = option(
        None, help="Memory of the model's features, such as vectors; left out: none"
    )
    mixture: Mixture = option(
        "geometric", help="Whether tiers' probabilities are mixed with the model's, or their logarithms"
    )
    reading: Reading = option(
        "batch",
        help="In training: read all of a batch before any of it is remembered, as evaluation finds it, or "
        "each place after those before it",
    )
    k: int = option(16, help="Vectors that a place reads", ge=1)
    sharpness: float = option(20.0, help="Factor of the vectors' scores in their softmax", gt=0)
    surprise: float = option(2.0, help="Bits from which on a place is remembered as a vector", ge=0)
