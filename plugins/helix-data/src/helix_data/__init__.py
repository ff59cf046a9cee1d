"""Datasets for Helix: byte streams whose every batch is a pure function of its arguments."""

__version__ = "0.1.0"
