"""What the ops have in common whose heads each carry a matrix (K, V) from token to token.

Such an op maps `tokens`, which are queries (B, L, H, K), keys (B, L, H, K), values (B, L, H, V) and, after
these, whatever else it has of each token, and a state (B, H, K, V) to outputs o (B, L, H, V) and the next
state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from helix_ssm.ops._check import check_packed, check_shape, compute_dtype, n_states
from helix_ssm.ops._sequences import one_by_one

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor


def recur(
    step: Callable[..., tuple[Tensor, Tensor]],
    tokens: Sequence[Tensor],
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Run a recurrence token by token.

    Args:
        step: Maps a state (B, H, K, V) and what the op has of one token, each (B, H, ...), to that token's
            output (B, H, V) and the next state.
        tokens: Queries, keys, values and the rest.
        initial_state: State before the first step, or None for zero.
        cu_seqlens: Bounds of sequences packed into one row, or None.

    Returns:
        o (B, L, H, V) in the values' dtype, and the final state.
    """
    if cu_seqlens is not None:

        def run(*sequence: Tensor) -> tuple[Tensor, Tensor]:
            return recur(step, sequence[:-1], sequence[-1], None)

        return one_by_one(run, tokens, initial_state, cu_seqlens)
    dtype, values = compute_dtype(*tokens, initial_state), tokens[2]
    state = first_state(tokens, initial_state, dtype)
    outputs = [values[:, :0].to(dtype)]
    for token in zip(*(tensor.to(dtype).unbind(1) for tensor in tokens), strict=True):
        o, state = step(state, *token)
        outputs.append(o.unsqueeze(1))
    return torch.cat(outputs, dim=1).to(values.dtype), state.clone(memory_format=torch.contiguous_format)


def first_state(tokens: Sequence[Tensor], initial_state: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return the state before the first step (B, H, K, V) in the dtype to compute in."""
    if initial_state is not None:
        return initial_state.to(dtype)
    queries, _, values = tokens[:3]
    batch_size, _, n_heads, k_dim = queries.shape
    return values.new_zeros(batch_size, n_heads, k_dim, values.shape[3], dtype=dtype)


def empty_results(
    tokens: Sequence[Tensor], initial_state: Tensor | None, cu_seqlens: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return an output and a final state of the right shape and dtype, for an op's fake kernel."""
    queries, _, values = tokens[:3]
    batch_size, _, n_heads, k_dim = queries.shape
    shape = n_states(cu_seqlens, batch_size), n_heads, k_dim, values.shape[3]
    dtype = compute_dtype(*tokens, initial_state)
    return values.new_empty(values.shape), values.new_empty(shape, dtype=dtype)


def check_heads(
    name: str, queries: Tensor, v: Tensor, initial_state: Tensor | None, cu_seqlens: Tensor | None
) -> None:
    """Check what has the same shape in every op of this kind.

    Args:
        name: What the op calls its queries.
        queries: Queries, by which the other shapes go.
        v: Values.
        initial_state: State before the first step, or None.
        cu_seqlens: Bounds of packed sequences, or None.

    Raises:
        ArgumentError: A shape or dtype does not fit.
    """
    check_shape(name, queries, (None, None, None, None))
    batch_size, seq_len, n_heads, k_dim = queries.shape
    check_shape("v", v, (batch_size, seq_len, n_heads, None))
    check_packed(cu_seqlens, batch_size)
    rows = n_states(cu_seqlens, batch_size)
    check_shape("initial_state", initial_state, (rows, n_heads, k_dim, v.shape[3]))
