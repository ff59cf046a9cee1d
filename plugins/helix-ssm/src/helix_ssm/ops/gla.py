"""Gated linear attention: a memory of products of keys and values whose rows decay each at its own rate.

Yang et al. 2023, "Gated Linear Attention Transformers with Hardware-Efficient Training",
https://arxiv.org/abs/2312.06635, section 4.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from helix_kernel.ops import OpContract, Sample, define
from helix_ssm.ops._check import check_packed, check_shape, compute_dtype, n_states
from helix_ssm.ops._sequences import one_by_one

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


def gla(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    return_final_state: bool = False,  # noqa: FBT001, FBT002 - the signature that the field knows
    cu_seqlens: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Run S_t = diag(exp(g_t)) S_{t-1} + k_t v_t^T and o_t = scale S_t^T q_t.

    Each head has a state S of its own, a matrix (K, V). It computes in float32, or float64 where any
    argument is float64.

    Args:
        q: Queries (B, L, H, K).
        k: Keys (B, L, H, K).
        v: Values (B, L, H, V).
        g: Logarithms of the gates (B, L, H, K), at most 0; minus infinity empties a row of the memory.
        scale: Factor on the outputs; left out: 1 / sqrt(K).
        initial_state: State before the first step (B, H, K, V); zero where left out.
        return_final_state: Whether to return the state after the last step too.
        cu_seqlens: Bounds (n+1,) of n sequences packed into one row, int32 or int64; states then
            have n rows.

    Returns:
        o (B, L, H, V) in the dtype of `v`; with `return_final_state` also the final state
        (B, H, K, V), in float32 or float64.

    Raises:
        ArgumentError: A shape or dtype does not fit.
    """
    _check(q, k, v, g, initial_state, cu_seqlens)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    o, final_state = op(q, k, v, g, scale, initial_state, cu_seqlens)
    return (o, final_state) if return_final_state else o


def reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    scale: float,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Run the recurrence step by step; returns o (B, L, H, V) and the final state (B, H, K, V)."""
    if cu_seqlens is not None:
        return one_by_one(
            lambda q, k, v, g, state: reference(q, k, v, g, scale, state, None),
            (q, k, v, g),
            initial_state,
            cu_seqlens,
        )
    dtype = compute_dtype(q, k, v, g, initial_state)
    queries, keys, values, gates = (tensor.to(dtype).unbind(1) for tensor in (q, k, v, g.to(dtype).exp()))
    batch_size, _, n_heads, k_dim = k.shape
    state = (
        v.new_zeros(batch_size, n_heads, k_dim, v.shape[3], dtype=dtype)
        if initial_state is None
        else initial_state.to(dtype)
    )
    outputs = [v[:, :0].to(dtype)]
    for t in range(v.shape[1]):
        state = gates[t].unsqueeze(-1) * state + keys[t].unsqueeze(-1) * values[t].unsqueeze(-2)
        outputs.append(scale * torch.einsum("bhk,bhkv->bhv", queries[t], state).unsqueeze(1))
    return torch.cat(outputs, dim=1).to(v.dtype), state.clone(memory_format=torch.contiguous_format)


def _check(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, initial_state: Tensor | None, cu_seqlens: Tensor | None
) -> None:
    check_shape("q", q, (None, None, None, None))
    batch_size, seq_len, n_heads, k_dim = q.shape
    check_shape("k", k, q.shape)
    check_shape("v", v, (batch_size, seq_len, n_heads, None))
    check_shape("g", g, q.shape)
    check_packed(cu_seqlens, batch_size)
    rows = n_states(cu_seqlens, batch_size)
    check_shape("initial_state", initial_state, (rows, n_heads, k_dim, v.shape[3]))


def _fake(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    scale: float,  # noqa: ARG001 - the op's schema
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor]:
    dtype = compute_dtype(q, k, v, g, initial_state)
    batch_size, _, n_heads, k_dim = q.shape
    rows = n_states(cu_seqlens, batch_size)
    return v.new_empty(v.shape), v.new_empty((rows, n_heads, k_dim, v.shape[3]), dtype=dtype)


def _flops(q: torch.Size, k: torch.Size, v: torch.Size, *_rest: object) -> int:  # noqa: ARG001
    """Count 5 operations for each element of the state and step, and 1 for each gate and each value.

    An element takes the gate (1) and multiply-adds with key and query (2 each); a gate its exponential,
    a value the scale.
    """
    batch_size, seq_len, n_heads, k_dim = q
    return batch_size * seq_len * n_heads * (5 * k_dim * v[3] + k_dim + v[3])


def _samples() -> Iterator[Sample]:
    yield Sample("plain", _arguments())
    yield Sample("state", _arguments(state=True, scale=1.0))
    yield Sample("one-step", _arguments(seq_len=1, state=True))
    yield Sample("no-step", _arguments(seq_len=0, state=True))
    yield Sample("one-channel", _arguments(k_dim=1, v_dim=1))
    yield Sample("forgets-at-once", _arguments(seq_len=40, decay=50.0, state=True))
    yield Sample("empties-the-memory", _arguments(seq_len=70, emptied=(0, 3, 64, 69), state=True))
    yield Sample("over-two-chunks", _arguments(batch_size=1, seq_len=133, decay=0.05, state=True))
    yield Sample("many-threads", _arguments(batch_size=3, seq_len=66, n_heads=5, k_dim=16, v_dim=24))
    yield Sample("packed", _arguments(batch_size=1, seq_len=21, bounds=(0, 1, 5, 16, 16, 21)))
    yield Sample("packed-state", _arguments(batch_size=1, seq_len=80, bounds=(0, 70, 80), state=True))


def _arguments(
    *,
    batch_size: int = 2,
    seq_len: int = 7,
    n_heads: int = 2,
    k_dim: int = 4,
    v_dim: int = 3,
    scale: float = 0.5,
    decay: float = 0.5,
    emptied: tuple[int, ...] = (),
    bounds: tuple[int, ...] | None = None,
    state: bool = False,
) -> tuple[object, ...]:
    generator = torch.Generator().manual_seed(seq_len * 100 + k_dim)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    heads = (batch_size, seq_len, n_heads)
    g = -draw(*heads, k_dim).abs() * decay
    g[:, list(emptied), :, ::2] = -torch.inf
    rows = batch_size if bounds is None else len(bounds) - 1
    return (
        draw(*heads, k_dim),
        draw(*heads, k_dim),
        draw(*heads, v_dim),
        g,
        scale,
        draw(rows, n_heads, k_dim, v_dim) if state else None,
        None if bounds is None else torch.tensor(bounds),
    )


contract = OpContract(
    name="gla",
    schema=(
        "(Tensor q, Tensor k, Tensor v, Tensor g, float scale, Tensor? initial_state, Tensor? cu_seqlens)"
        " -> (Tensor o, Tensor final_state)"
    ),
    reference=reference,
    fake=_fake,
    samples=_samples,
    flops=_flops,
    constants=("cu_seqlens",),
)
op = define(contract)
