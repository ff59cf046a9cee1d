"""Checkpoints of states that several processes hold together, in the one format that `load` reads.

Each rank writes its own shards; what comes out is an ordinary checkpoint, which any number of ranks
reads again, or one process by ``helix_kernel.checkpoint.load``. Planning and resharding of DTensors are
those of ``torch.distributed.checkpoint``, to which this is a storage writer and reader, with planners
that never pickle to disk.
"""

from helix_train.distributed_checkpoint.planners import HelixLoadPlanner, HelixSavePlanner
from helix_train.distributed_checkpoint.sharded import load_sharded, save_sharded
from helix_train.distributed_checkpoint.storage_reader import HelixStorageReader
from helix_train.distributed_checkpoint.storage_writer import HelixStorageWriter

__all__ = [
    "HelixLoadPlanner",
    "HelixSavePlanner",
    "HelixStorageReader",
    "HelixStorageWriter",
    "load_sharded",
    "save_sharded",
]
