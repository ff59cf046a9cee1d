"""Folders of memory-mapped shards: bytes end to end, and where each document ends."""
