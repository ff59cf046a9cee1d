"""Helix on a Ray cluster: runs of several workers, and sweeps."""

__version__ = "0.1.0"
