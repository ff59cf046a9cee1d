"""Layers that put vectors into words: each position becomes one of finitely many codes, or a few."""
