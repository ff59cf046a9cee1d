"""Sequences packed into one row, laid out as a padded batch and back.

An op that has a batched form serves ``cu_seqlens`` with it::

    packing = Packing.of(cu_seqlens, seq_len=x.shape[1])
    y, final_state = batched(packing.pad(decay, fill=1.0), packing.pad(x), initial_state)
    return packing.cut(y), final_state

Sequences begin at the left, so that padding follows them. What fills it must leave the state as it is:
a decay of 1 and an input of 0. Then the batched form's final state is each sequence's own.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from helix_ssm.ops._check import segments


class Packing(NamedTuple):
    """Where each token of a packed row lies in the padded batch.

    The batch holds n L_max tokens, however few of them are real: n sequences of like lengths waste little.

    Attributes:
        n_sequences: Sequences n in the row, empty ones among them.
        max_len: Length L_max of the longest.
        places: Place of each token in the flattened batch, row * L_max + position, (T,) int64.
    """

    n_sequences: int
    max_len: int
    places: Tensor

    @classmethod
    def of(cls, cu_seqlens: Tensor, seq_len: int) -> Packing:
        """Lay out the sequences that ``cu_seqlens`` (n+1,) bounds in a row of `seq_len` tokens.

        It reads the values of ``cu_seqlens``, for which a GPU must be waited for.

        Raises:
            ArgumentError: The values do not rise from 0 to `seq_len`.
        """
        lengths = [end - start for start, end in segments(cu_seqlens, seq_len)]
        max_len = max(lengths)
        starts, sizes = cu_seqlens[:-1].long(), cu_seqlens.diff().long()
        rows = torch.arange(len(lengths), device=cu_seqlens.device)
        shifts = (rows * max_len - starts).repeat_interleave(sizes, output_size=seq_len)
        return cls(len(lengths), max_len, shifts + torch.arange(seq_len, device=cu_seqlens.device))

    def pad(self, x: Tensor, fill: float = 0.0) -> Tensor:
        """Lay a packed row x (1, T, ...) out as a batch (n, L_max, ...), `fill` where no token is.

        Differentiable; the result is contiguous.
        """
        batch = x.new_full((self.n_sequences * self.max_len, *x.shape[2:]), fill)
        return batch.index_copy(0, self.places, x[0]).view(self.n_sequences, self.max_len, *x.shape[2:])

    def cut(self, y: Tensor) -> Tensor:
        """Take the tokens of a batch y (n, L_max, ...) back into one row (1, T, ...).

        Differentiable: what lies in the padding has no gradient. The result is contiguous.
        """
        return y.flatten(0, 1).index_select(0, self.places).unsqueeze(0)
