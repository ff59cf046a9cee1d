"""Options of the memory of vectors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import attrs

from helix_kernel import FactoryOf, option

Form = Literal["half-life", "closed-form"]


@attrs.frozen(kw_only=True)
class VectorsConfig:
    """Keys and values as vectors, found by likeness."""

    d_key: int = option(help="Length of a key", ge=1)
    d_value: int = option(help="Length of a value", ge=1)
    capacity: int = option(65_536, help="Most entries", ge=1)
    eviction: Annotated[Any, FactoryOf("eviction", supplies=("capacity",))] | None = option(
        None, help="Which entry gives way; left out: the one of the lowest retrievability, all compared"
    )
    search: Literal["exact", "approximate"] = option(
        "exact", help="Whether a query is compared with all keys, or walks a graph of neighbours"
    )
    n_neighbors: int = option(16, help="Neighbours of a key in that graph", ge=2)
    n_tried: int = option(64, help="Candidates that a walk keeps; more find more and take longer", ge=1)
    merge_above: float | None = option(
        None,
        help="Cosine from which on what is written becomes part of the entry most like it; left out: never",
        ge=-1,
        le=1,
    )
    recall_above: float = option(
        0.9, help="Cosine from which on a query counts as a recall of what it finds first", ge=-1, le=1
    )
    forget_below: float = option(
        0.0, help="Retrievability below which a consolidation removes an entry; 0 keeps all", ge=0, le=1
    )
    value_dtype: Literal["float32", "float64", "float16", "bfloat16"] = option(
        "float32", help="Of the values"
    )
    stability: Form = option(
        "half-life",
        help="Whether entries stand by a half-life that grows with recalls, or by the older closed form, "
        "ln(1 + R + C) + E + Φ - decay, with classes from 0.3 and 0.7",
    )
    decay: float = option(
        0.01, help="What the closed form takes away for each unit of time without a recall", ge=0
    )
