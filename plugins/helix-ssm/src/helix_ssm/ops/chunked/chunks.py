"""Multi-head sequences cut into chunks, each a matrix (C, K) of its own, and back.

What fills the last chunk is zeros, which every op that uses this treats as a step that does nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor


def chunk_len(seq_len: int, longest: int) -> int:
    """Return the power of two, at most `longest`, that a sequence is cut by; one token is a chunk of one."""
    return min(longest, 1 << max(seq_len - 1, 0).bit_length())


def split(x: Tensor, length: int) -> Tensor:
    """Cut x (B, L, H, ...) into n >= 1 chunks (B, H, n, C, ...) of C = `length` tokens, contiguous."""
    n_chunks = max(-(-x.shape[1] // length), 1)
    padded = F.pad(x, (0, 0) * (x.dim() - 2) + (0, n_chunks * length - x.shape[1]))
    return padded.reshape(x.shape[0], n_chunks, length, *x.shape[2:]).movedim(3, 1).contiguous()


def join(chunks: Tensor, seq_len: int) -> Tensor:
    """Put chunks (B, H, n, C, V) together to (B, L, H, V), contiguous."""
    return chunks.movedim(1, 3).flatten(1, 2)[:, :seq_len].contiguous()
