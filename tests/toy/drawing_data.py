"""A plugin of somebody's own: a dataset that draws from the global generators, as most do."""

import random
from typing import NamedTuple

import numpy as np
import torch

import helix_kernel
from helix_kernel import Component


class Batch(NamedTuple):
    inputs: torch.Tensor
    targets: torch.Tensor


class Drawing:
    vocab_size = 32
    seq_len = 6
    batch_size = 2
    fingerprint = "drawn anew"

    def describe(self):
        return "drawn"

    def batch(self, *, seed, step, rank=0, world_size=1):
        ids = (
            torch.randint(8, (2, 7))
            + torch.from_numpy(np.random.randint(8, size=(2, 7)))
            + random.randrange(8)
        )
        ids = (ids + step % 3).long()
        return Batch(ids[:, :-1], ids[:, 1:])

    def held_out(self):
        return np.arange(20, dtype=np.uint8)


@helix_kernel.hookimpl
def helix_datasets():
    return [Component(name="drawing", target="drawing_data:Drawing")]
