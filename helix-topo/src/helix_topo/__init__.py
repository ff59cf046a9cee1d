"""Memory in tiers for Helix: motifs, their cycles and cores, and vectors, kept by how stable they are."""

__version__ = "0.1.0"
