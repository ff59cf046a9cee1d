"""Sequences cut into chunks of tokens, packed or not, without asking the device how long they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor


class Chunks(NamedTuple):
    """Where each chunk of a call lies; kernels read it with the functions of `helix_cuda.kernels.chunks`.

    A chunk has a slot, and those of a sequence have neighbouring slots. Tokens are counted over the whole
    batch, row after row. Of packed sequences only the number is known here and not the lengths, so that
    there are slots to spare, which stay empty.

    Attributes:
        size: Most tokens in a chunk.
        n_slots: Slots, some of which may be empty.
        n_sequences: Sequences, and so states.
        per_row: Slots of each row of a batch that is not packed, 0 of one that is.
        bounds: First token of each slot and the last one's end (n_slots + 1,), int64; any tensor where
            nothing is packed.
        firsts: First slot of each sequence and the number of slots in use (n_sequences + 1,), int64; as
            above.
    """

    size: int
    n_slots: int
    n_sequences: int
    per_row: int
    bounds: Tensor
    firsts: Tensor


def cut(like: Tensor, size: int, cu_seqlens: Tensor | None) -> Chunks:
    """Cut the sequences of a call into chunks.

    Args:
        like: A tensor (B, L, ...) of the call.
        size: Most tokens in a chunk.
        cu_seqlens: Bounds of the sequences packed into its one row, or None.
    """
    batch_size, seq_len = like.shape[:2]
    if cu_seqlens is None:
        per_row = -(-seq_len // size)
        return Chunks(size, batch_size * per_row, batch_size, per_row, like, like)
    ends = cu_seqlens.to(torch.int64)
    n_sequences = ends.shape[0] - 1
    firsts = torch.zeros_like(ends)
    torch.cumsum((ends.diff() + size - 1) // size, 0, out=firsts[1:])
    n_slots = seq_len // size + n_sequences
    slots = torch.arange(n_slots + 1, device=like.device)
    owner = torch.searchsorted(firsts, slots, right=True).clamp_(max=n_sequences) - 1
    bounds = torch.minimum(ends[owner] + (slots - firsts[owner]) * size, ends[owner + 1])
    return Chunks(size, n_slots, n_sequences, 0, bounds, firsts)
