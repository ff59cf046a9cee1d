"""SIMD kernels for sequence layers on the CPU: a backend of Helix, and a gift to models of transformers."""

from __future__ import annotations

from helix_cpu.transformers import TransformersPatch, patch_transformers

__all__ = ["TransformersPatch", "__version__", "patch_transformers"]

__version__ = "0.1.0"
