"""Sequence layers, one module each: every layer maps (B, L, D) to (B, L, D) and is causal."""
