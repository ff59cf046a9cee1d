"""How ops whose heads each carry a matrix (K, V) are run chunk by chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helix_ssm.ops._check import compute_dtype
from helix_ssm.ops._matrix_state import first_state, recur
from helix_ssm.ops.chunked.chunks import chunk_len, join, split
from helix_ssm.ops.chunked.packed import Packing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor


def in_chunks(
    chunks: Callable[..., tuple[Tensor, Tensor]],
    step: Callable[..., tuple[Tensor, Tensor]],
    tokens: Sequence[Tensor],
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
    *,
    longest: int,
) -> tuple[Tensor, Tensor]:
    """Run a recurrence in chunks.

    Args:
        chunks: Maps a state (B, H, K, V) and chunks of tokens, each (B, H, n, C, ...), to their outputs
            (B, H, n, C, V) and the state after the last. Tokens that are zero leave the state as it is.
        step: The same for one token, as in `recur`.
        tokens: Queries, keys, values (B, L, H, ...) and whatever else the op has of each token.
        initial_state: State before the first token, or None for zero.
        cu_seqlens: Bounds of sequences packed into one row, or None.
        longest: Most tokens C in a chunk, a power of two.

    Returns:
        o (B, L, H, V) in the values' dtype, and the final state.
    """
    seq_len = tokens[0].shape[1]
    if cu_seqlens is not None:
        packing = Packing.of(cu_seqlens, seq_len)
        padded = [packing.pad(tensor) for tensor in tokens]
        o, final_state = in_chunks(chunks, step, padded, initial_state, None, longest=longest)
        return packing.cut(o), final_state
    if seq_len == 1:  # one step is the formula itself, in fewer calls
        return recur(step, tokens, initial_state, None)
    dtype, length = compute_dtype(*tokens, initial_state), chunk_len(seq_len, longest)
    cut = (split(tensor.to(dtype), length) for tensor in tokens)
    o, final_state = chunks(first_state(tokens, initial_state, dtype), *cut)
    return join(o, seq_len).to(tokens[2].dtype), final_state
