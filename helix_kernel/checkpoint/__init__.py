"""Checkpoints: a nested state of arrays and plain values on disk, there whole or not at all.

A step is a directory with its arrays end to end in one file a rank, and a manifest by which any Zarr v3
reader opens it, one array for each tensor at a human path such as ``model/blocks/3/mixer/A_log``.
Nothing is pickled and no code is stored. It becomes visible by one rename, after everything in it has
reached the disk; everything has a digest, so that damage is found and named by array. POSIX only.
"""

from helix_kernel.checkpoint.as_zarr import zarr_store
from helix_kernel.checkpoint.lazy_array import LazyArray
from helix_kernel.checkpoint.manager import CheckpointManager, resolve, steps_at
from helix_kernel.checkpoint.reader import ArrayInfo, Checkpoint, load, load_into
from helix_kernel.checkpoint.retention import Retention
from helix_kernel.checkpoint.writer import save

__all__ = [
    "ArrayInfo",
    "Checkpoint",
    "CheckpointManager",
    "LazyArray",
    "Retention",
    "load",
    "load_into",
    "resolve",
    "save",
    "steps_at",
    "zarr_store",
]
