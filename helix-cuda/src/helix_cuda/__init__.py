"""CUDA backend for Helix: it looks for GPUs and Triton, and offers no op yet."""

__version__ = "0.1.0"
