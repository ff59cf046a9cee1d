"""Options of the tiers that know which motif follows which."""

from __future__ import annotations

from typing import Annotated, Any

import attrs

from helix_kernel import ComponentOf, option


@attrs.frozen(kw_only=True)
class CyclesConfig:
    """Tier M1: which motifs follow one another, and lie on a cycle."""

    below: Annotated[Any, ComponentOf("memory_tier")] = option(
        {"use": "motifs"}, help="The tier that holds the entries, as a table with use"
    )
    budget: int = option(1 << 22, help="Bytes that the arcs may take", ge=1)
    ways: int = option(16, help="Most arcs that lead away from an entry", ge=1)
    least: int = option(3, help="How often an arc must have been seen to be followed", ge=1)
    gate_by_phase: bool = option(False, help="Whether what is out of step with its component is found later")
    analyse_every: int = option(
        1 << 20, help="Most arcs of a language model's windows between two analyses of the graph", ge=1
    )


@attrs.frozen(kw_only=True)
class StableCoresConfig:
    """Tier M2: the lasting, densely linked entries, consolidated into vectors."""

    d_key: int = option(help="Length of a key, such as the model's width", ge=1)
    d_value: int = option(help="Length of a value, such as the number of symbols", ge=1)
    capacity: int = option(1024, help="Most entries", ge=1)
    alike: float = option(
        0.95, help="Cosine from which on a key that is written recalls the entry most like it", gt=0, le=1
    )
    merge_above: float = option(
        0.8, help="Cosine to their mean from which on entries of a core are merged", gt=0, le=1
    )
    core: int = option(2, help="Core number from which on an entry belongs to a core", ge=1)
    least: int = option(3, help="How often an arc must have been seen to count for that", ge=1)
    stable_from: float = option(
        16.0, help="Half-life from which on an entry is stable, in the unit of time of writes", gt=0
    )
    budget: int = option(1 << 20, help="Bytes that the arcs between entries may take", ge=1)
    n_read: int = option(8, help="How many entries a language model's prediction is made of", ge=1)
    sharpness: float = option(
        20.0, help="Factor of the cosines in the softmax by which those entries are weighed", gt=0
    )
