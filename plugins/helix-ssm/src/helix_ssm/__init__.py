"""State-space and other post-transformer sequence layers for Helix, with their op contracts."""

__version__ = "0.1.0"
