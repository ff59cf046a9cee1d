"""Gated delta rule: a memory that decays, and in which each write first removes what the key held.

Yang, Kautz and Hatamizadeh 2024, "Gated Delta Networks: Improving Mamba2 with Delta Rule",
https://arxiv.org/abs/2412.06464, section 3.1.
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


def gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    return_final_state: bool = False,  # noqa: FBT001, FBT002 - the signature that the field knows
    cu_seqlens: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Run S_t = exp(g_t) (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T and o_t = scale S_t^T q_t.

    Each head has a state S of its own, a matrix (K, V), the transpose of the paper's. Keys are taken as
    they are: with unit keys and beta in [0, 1] a step never lets the state grow but by its write; beta up
    to 2 allows negative eigenvalues (Grazzi et al. 2024, https://arxiv.org/abs/2411.12537). It computes in
    float32, or float64 where any argument is float64.

    Args:
        q: Queries (B, L, H, K).
        k: Keys (B, L, H, K).
        v: Values (B, L, H, V).
        g: Logarithm of the decay (B, L, H), at most 0; minus infinity empties the memory.
        beta: Strength of the write (B, L, H).
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
    _check(q, k, v, g, beta, initial_state, cu_seqlens)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    o, final_state = op(q, k, v, g, beta, scale, initial_state, cu_seqlens)
    return (o, final_state) if return_final_state else o


def reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    scale: float,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Run the recurrence step by step; returns o (B, L, H, V) and the final state (B, H, K, V)."""
    return recur(partial(step, scale), (q, k, v, g, beta), initial_state, cu_seqlens)


def step(
    scale: float, state: Tensor, q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor
) -> tuple[Tensor, Tensor]:
    """Return o_t (B, H, V) and S_t from S_{t-1} (B, H, K, V) and one token's q, k, v, g and beta."""
    state = g.exp()[..., None, None] * state
    held = torch.einsum("bhk,bhkv->bhv", k, state)
    write = beta.unsqueeze(-1) * (v - held)
    state = state + torch.einsum("bhk,bhv->bhkv", k, write)
    return scale * torch.einsum("bhk,bhkv->bhv", q, state), state


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> None:
    check_heads("q", q, v, initial_state, cu_seqlens)
    check_shape("k", k, q.shape)
    check_shape("g", g, q.shape[:3])
    check_shape("beta", beta, q.shape[:3])


def _fake(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    scale: float,  # noqa: ARG001 - the op's schema
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor]:
    return empty_results((q, k, v, g, beta), initial_state, cu_seqlens)


def _flops(q: torch.Size, k: torch.Size, v: torch.Size, *_rest: object) -> int:  # noqa: ARG001
    """Count 7 operations for each element of the state and step, and 3 for each value.

    An element takes the decay (1) and multiply-adds with key, write and query (2 each); a value the
    difference from what the key held, beta and the scale (3).
    """
    batch_size, seq_len, n_heads, k_dim = q
    return batch_size * seq_len * n_heads * v[3] * (7 * k_dim + 3)


def _samples() -> Iterator[Sample]:
    yield from samples(_arguments)
    yield Sample("negative-eigenvalues", _arguments(Case(seq_len=40, state=True), strongest=2.0))


def _arguments(case: Case, strongest: float = 1.0) -> tuple[object, ...]:
    draws = Draws(case)
    return (
        draws.keys(),
        draws.unit_keys(),
        draws.values(),
        draws.log_decays(),
        draws.tokens().sigmoid() * strongest,
        0.5,
        draws.initial_state(),
        draws.cu_seqlens(),
    )


contract = OpContract(
    name="gated_delta_rule",
    schema=(
        "(Tensor q, Tensor k, Tensor v, Tensor g, Tensor beta, float scale, Tensor? initial_state,"
        " Tensor? cu_seqlens) -> (Tensor o, Tensor final_state)"
    ),
    reference=reference,
    fake=_fake,
    samples=_samples,
    flops=_flops,
    constants=("cu_seqlens",),
)
op = define(contract)
