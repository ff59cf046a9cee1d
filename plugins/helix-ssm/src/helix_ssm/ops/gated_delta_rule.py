"""Gated delta rule: a memory that decays, and in which each write first removes what the key held.

Yang, Kautz and Hatamizadeh 2024, "Gated Delta Networks: Improving Mamba2 with Delta Rule",
https://arxiv.org/abs/2412.06464, section 3.1.
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
    if cu_seqlens is not None:
        return one_by_one(
            lambda q, k, v, g, beta, state: reference(q, k, v, g, beta, scale, state, None),
            (q, k, v, g, beta),
            initial_state,
            cu_seqlens,
        )
    dtype = compute_dtype(q, k, v, g, beta, initial_state)
    queries, keys, values, decay, strength = (
        tensor.to(dtype).unbind(1) for tensor in (q, k, v, g.to(dtype).exp(), beta)
    )
    batch_size, _, n_heads, k_dim = k.shape
    state = (
        v.new_zeros(batch_size, n_heads, k_dim, v.shape[3], dtype=dtype)
        if initial_state is None
        else initial_state.to(dtype)
    )
    outputs = [v[:, :0].to(dtype)]
    for t in range(v.shape[1]):
        state = decay[t][..., None, None] * state
        held = torch.einsum("bhk,bhkv->bhv", keys[t], state)
        write = strength[t][..., None] * (values[t] - held)
        state = state + torch.einsum("bhk,bhv->bhkv", keys[t], write)
        outputs.append(scale * torch.einsum("bhk,bhkv->bhv", queries[t], state).unsqueeze(1))
    return torch.cat(outputs, dim=1).to(v.dtype), state.clone(memory_format=torch.contiguous_format)


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> None:
    check_shape("q", q, (None, None, None, None))
    batch_size, seq_len, n_heads, k_dim = q.shape
    check_shape("k", k, q.shape)
    check_shape("v", v, (batch_size, seq_len, n_heads, None))
    check_shape("g", g, (batch_size, seq_len, n_heads))
    check_shape("beta", beta, (batch_size, seq_len, n_heads))
    check_packed(cu_seqlens, batch_size)
    rows = n_states(cu_seqlens, batch_size)
    check_shape("initial_state", initial_state, (rows, n_heads, k_dim, v.shape[3]))


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
    dtype = compute_dtype(q, k, v, g, beta, initial_state)
    batch_size, _, n_heads, k_dim = q.shape
    rows = n_states(cu_seqlens, batch_size)
    return v.new_empty(v.shape), v.new_empty((rows, n_heads, k_dim, v.shape[3]), dtype=dtype)


def _flops(q: torch.Size, k: torch.Size, v: torch.Size, *_rest: object) -> int:  # noqa: ARG001
    """Count 7 operations for each element of the state and step, and 3 for each value.

    An element takes the decay (1) and multiply-adds with key, write and query (2 each); a value the
    difference from what the key held, beta and the scale (3).
    """
    batch_size, seq_len, n_heads, k_dim = q
    return batch_size * seq_len * n_heads * v[3] * (7 * k_dim + 3)


def _samples() -> Iterator[Sample]:
    yield Sample("plain", _arguments())
    yield Sample("state", _arguments(state=True, scale=1.0))
    yield Sample("one-step", _arguments(seq_len=1, state=True))
    yield Sample("no-step", _arguments(seq_len=0, state=True))
    yield Sample("one-channel", _arguments(k_dim=1, v_dim=1))
    yield Sample("negative-eigenvalues", _arguments(seq_len=40, beta=2.0, state=True))
    yield Sample("forgets-at-once", _arguments(seq_len=40, decay=30.0, state=True))
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
    beta: float = 1.0,
    decay: float = 0.5,
    emptied: tuple[int, ...] = (),
    bounds: tuple[int, ...] | None = None,
    state: bool = False,
) -> tuple[object, ...]:
    generator = torch.Generator().manual_seed(seq_len * 100 + k_dim)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    heads = (batch_size, seq_len, n_heads)
    keys = draw(*heads, k_dim)
    g = -draw(*heads).abs() * decay
    g[:, list(emptied)] = -torch.inf
    rows = batch_size if bounds is None else len(bounds) - 1
    return (
        draw(*heads, k_dim),
        keys / keys.norm(dim=-1, keepdim=True),
        draw(*heads, v_dim),
        g,
        draw(*heads).sigmoid() * beta,
        scale,
        draw(rows, n_heads, k_dim, v_dim) if state else None,
        None if bounds is None else torch.tensor(bounds),
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
