"""What each version changed in a checkpoint."""

from helix_kernel.upgrades import renamed


def to_0_2(tensors):
    return renamed(tensors, {"weight": "decay"})
