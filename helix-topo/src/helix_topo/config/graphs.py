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
