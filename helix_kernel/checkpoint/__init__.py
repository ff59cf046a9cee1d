"""Checkpoints: a nested state of arrays and plain values on disk, there whole or not at all.

A step is a directory that any Zarr v3 reader opens, one array for each tensor at a human path
such as ``model/blocks/3/mixer/A_log``. Nothing is pickled and no code is stored. It becomes
visible by one rename, after everything in it has reached the disk; every file has a digest, so
that damage is found and named by array, and no missing chunk is ever read as zeros. POSIX only.
"""

from helix_kernel.checkpoint.manager import CheckpointManager, resolve
from helix_kernel.checkpoint.reader import ArrayInfo, Checkpoint, LazyArray, load
from helix_kernel.checkpoint.writer import save

__all__ = ["ArrayInfo", "Checkpoint", "CheckpointManager", "LazyArray", "load", "resolve", "save"]
