"""Helix's kernels inside Hugging Face transformers, for models that know nothing of Helix."""

from __future__ import annotations

from helix_cpu.transformers.patch import TransformersPatch, patch_transformers

__all__ = ["TransformersPatch", "patch_transformers"]
