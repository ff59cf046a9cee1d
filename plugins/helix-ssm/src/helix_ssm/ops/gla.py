"""Gated linear attention: a memory of products of keys and values whose rows decay each at its own rate.

Yang et al. 2023, "Gated Linear Attention Transformers with Hardware-Efficient Training",
https://arxiv.org/abs/2312.06635, section 4.1.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch

from helix_kernel.ops import OpContract, Sample, define
from helix_ssm.ops._check import check_shape
from helix_ssm.ops._matrix_samples import Case, Draws, samples
from helix_ssm.ops._matrix_state import check_heads, empty_results, recur

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
    return recur(partial(step, scale), (q, k, v, g), initial_state, cu_seqlens)


def step(scale: float, state: Tensor, q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Return o_t (B, H, V) and S_t from S_{t-1} (B, H, K, V) and one token's q, k, v and g."""
    state = g.exp().unsqueeze(-1) * state + k.unsqueeze(-1) * v.unsqueeze(-2)
    return scale * torch.einsum("bhk,bhkv->bhv", q, state), state


def _check(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, initial_state: Tensor | None, cu_seqlens: Tensor | None
) -> None:
    check_heads("q", q, v, initial_state, cu_seqlens)
    check_shape("k", k, q.shape)
    check_shape("g", g, q.shape)


def _fake(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    scale: float,  # noqa: ARG001 - the op's schema
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor]:
    return empty_results((q, k, v, g), initial_state, cu_seqlens)


def _flops(q: torch.Size, k: torch.Size, v: torch.Size, *_rest: object) -> int:  # noqa: ARG001
    """Count 5 operations for each element of the state and step, and 1 for each gate and each value.

    An element takes the gate (1) and multiply-adds with key and query (2 each); a gate its exponential,
    a value the scale.
    """
    batch_size, seq_len, n_heads, k_dim = q
    return batch_size * seq_len * n_heads * (5 * k_dim * v[3] + k_dim + v[3])


def _samples() -> Iterator[Sample]:
    return samples(_arguments)


def _arguments(case: Case) -> tuple[object, ...]:
    draws = Draws(case)
    return (
        draws.keys(),
        draws.keys(),
        draws.values(),
        draws.log_decays(case.k_dim),
        0.5,
        draws.initial_state(),
        draws.cu_seqlens(),
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
