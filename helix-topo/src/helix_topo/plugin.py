"""What helix-topo offers: memory tiers, a layer that reads one, and the policies that keep them small."""

from __future__ import annotations

import helix_kernel
from helix_kernel import Component, Kind


@helix_kernel.hookimpl
def helix_kinds() -> list[Kind]:
    """Bring the kind of what decides which entry gives way."""
    return [
        Kind(
            name="eviction",
            plural="evictions",
            summary="Which entry of a full memory gives way to a new one",
            suite="helix_topo.testing.evictions:EvictionSuite",
        )
    ]


@helix_kernel.hookimpl
def helix_memory_tiers() -> list[Component]:
    """Return the tiers."""
    return [
        Component(
            name="motifs",
            target="helix_topo.motifs.tier:Motifs",
            config="helix_topo.config.motifs:MotifsConfig",
            examples=[{"budget": 1 << 20}, {"budget": 1 << 20, "capacity": 9}],
            summary="Tier M0: what followed each run of symbols, in a bounded table of hashed contexts",
        ),
        Component(
            name="cycles",
            target="helix_topo.cycles:Cycles",
            config="helix_topo.config.graphs:CyclesConfig",
            summary="Tier M1: which motifs follow one another, and lie on a cycle",
        ),
        Component(
            name="stable-cores",
            target="helix_topo.stable_cores:StableCores",
            config="helix_topo.config.graphs:StableCoresConfig",
            summary="Tier M2: the lasting, densely linked entries, consolidated into vectors",
        ),
        Component(
            name="vectors",
            target="helix_topo.vectors:Vectors",
            config="helix_topo.config.vectors:VectorsConfig",
            summary="Keys and values as vectors, found by likeness",
        ),
        Component(
            name="hierarchy",
            target="helix_topo.hierarchy:Hierarchy",
            config="helix_topo.config.hierarchy:HierarchyConfig",
            examples=[
                {"motifs": {"use": "motifs", "budget": 1 << 20, "capacity": 9}},
                {
                    "motifs": {"use": "motifs", "budget": 1 << 20, "capacity": 9},
                    "cycles": {"use": "cycles", "budget": 1 << 16},
                },
            ],
            summary="All tiers as one: what is found where and why, mixed into a model's predictions",
        ),
    ]


@helix_kernel.hookimpl
def helix_layers() -> list[Component]:
    """Return the layer."""
    return [
        Component(
            name="memory-layer",
            target="helix_topo.memory_layer:MemoryLayer",
            config="helix_topo.config.memory_layer:MemoryLayerConfig",
            summary="Attention over the k nearest of all earlier positions, behind a gate",
        )
    ]


@helix_kernel.hookimpl
def helix_evictions() -> list[Component]:
    """Return the policies."""
    return [
        Component(
            name="fsrs",
            target="helix_topo.eviction.fsrs:Fsrs",
            config="helix_topo.config.eviction:FsrsConfig",
            summary="The entry least likely to be recalled, by a half-life that grows with each recall",
        ),
        Component(
            name="lru",
            target="helix_topo.eviction.lru:Lru",
            config="helix_topo.config.eviction:PolicyConfig",
            summary="The entry whose last recall is longest ago",
        ),
        Component(
            name="lfu",
            target="helix_topo.eviction.lfu:Lfu",
            config="helix_topo.config.eviction:PolicyConfig",
            summary="The entry that was recalled least often",
        ),
        Component(
            name="tinylfu",
            target="helix_topo.eviction.tinylfu:TinyLfu",
            config="helix_topo.config.eviction:TinyLfuConfig",
            summary="W-TinyLFU: a window, a segmented main part, and entry by estimated frequency",
        ),
        Component(
            name="belady",
            target="helix_topo.eviction.belady:Belady",
            config="helix_topo.config.eviction:PolicyConfig",
            summary="The entry needed latest, of a trace that is known in advance: a bound, not a policy",
        ),
    ]


@helix_kernel.hookimpl
def helix_commands() -> list[Component]:
    """Return the command."""
    return [
        Component(
            name="topo-plot",
            aliases=("topo plot",),
            target="helix_topo.commands:plot",
            summary="Draw the memory that a checkpoint holds",
        )
    ]
