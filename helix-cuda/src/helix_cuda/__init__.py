"""CUDA backend for Helix: Triton kernels for its ops, checked at their first call on a device."""

__version__ = "0.1.0"
