"""What speaks for an entry besides recalls: bits saved, variety of contexts, regularity in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from helix_topo.host import HostModule

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    Slots = NDArray[np.int64]
    Numbers = NDArray[np.float64]

_BITS = 64


class Evidence(HostModule):
    """Sums by slot from which E, C and Φ follow.

    E is the mean of the bits that an entry saved against an order-1 model. C = 1 - 1/(1 + left branching):
    how many different things came before it, estimated by linear counting in 64 bits (Whang et al. 1990).
    Φ is the order parameter of Kuramoto's oscillators, |Σ e^{iφ}| / n, of the phases φ = 2π log2 Δt of the
    times between recalls: 1 where each is the same up to powers of two, near 0 where they are of all lengths.

    Args:
        capacity: Slots.
    """

    saved: Tensor
    n_saved: Tensor
    before: Tensor
    phase_sum: Tensor
    n_gaps: Tensor

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.register_buffer("saved", torch.zeros(capacity, dtype=torch.float64))
        self.register_buffer("n_saved", torch.zeros(capacity, dtype=torch.int64))
        self.register_buffer("before", torch.zeros(capacity, dtype=torch.int64))
        self.register_buffer("phase_sum", torch.zeros(capacity, 2, dtype=torch.float64))
        self.register_buffer("n_gaps", torch.zeros(capacity, dtype=torch.int64))

    def add_saved(self, slots: Slots, bits: Numbers) -> None:
        """Take in that entries (n,) saved bits (n,)."""
        np.add.at(self.saved.numpy(), slots, bits)
        np.add.at(self.n_saved.numpy(), slots, 1)

    def add_before(self, slots: Slots, before: Slots) -> None:
        """Take in what came before entries (n,), as any number that stands for it (n,) int64."""
        mixed = before.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        bit = np.uint64(1) << (mixed >> np.uint64(58))
        np.bitwise_or.at(self.before.numpy().view(np.uint64), slots, bit)

    def add_gap(self, slots: Slots, elapsed: Numbers) -> None:
        """Take in the time (n,) between two recalls of entries (n,); one of 0 has no phase."""
        apart = elapsed > 0
        phase = 2 * np.pi * np.log2(elapsed[apart])
        np.add.at(self.phase_sum.numpy(), slots[apart], np.stack([np.cos(phase), np.sin(phase)], axis=-1))
        np.add.at(self.n_gaps.numpy(), slots[apart], 1)

    def forget(self, slots: Slots) -> None:
        """Leave nothing of what is known of slots (n,)."""
        for table in self.buffers():
            table.numpy()[slots] = 0

    def evidence(self, slots: Slots) -> Numbers:
        """Return E (n,) in bits; 0 where nothing is known."""
        mean: Numbers = self.saved.numpy()[slots] / np.maximum(self.n_saved.numpy()[slots], 1)
        return mean

    def context(self, slots: Slots) -> Numbers:
        """Return C (n,), from 0 to below 1."""
        bits = self.before.numpy()[slots].view(np.uint8).reshape(len(slots), 8)
        empty = _BITS - np.unpackbits(bits, axis=1).sum(axis=1)
        branching = -_BITS * np.log(np.maximum(empty, 1) / _BITS)
        return np.asarray(1 - 1 / (1 + branching), dtype=np.float64)

    def phase(self, slots: Slots) -> Numbers:
        """Return Φ (n,), from 0 to 1; 0 of fewer than two times, which could not differ."""
        n = self.n_gaps.numpy()[slots]
        length = np.hypot(*self.phase_sum.numpy()[slots].T)
        return np.where(n > 1, np.minimum(length / np.maximum(n, 1), 1.0), 0.0)
