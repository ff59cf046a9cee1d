"""RWKV-7's recurrence: a decaying memory from which, at each step, one direction is read and written anew.

Peng et al. 2025, "RWKV-7 Goose with Expressive Dynamic State Evolution",
https://arxiv.org/abs/2503.14456, section 4.1, in the general form of the authors' kernel: the transition
is a diagonal plus a product of any two vectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from helix_kernel.ops import OpContract, Sample, define
from helix_ssm.ops._check import check_packed, check_shape, compute_dtype, n_states
from helix_ssm.ops._sequences import one_by_one

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


def rwkv7(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    initial_state: Tensor | None = None,
    return_final_state: bool = False,  # noqa: FBT001, FBT002 - the signature that the field knows
    cu_seqlens: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Run S_t = (diag(exp(w_t)) + b_t a_t^T) S_{t-1} + k_t v_t^T and o_t = S_t^T r_t.

    Each head has a state S of its own, a matrix (K, V) as in the other ops: the transpose of the paper's,
    whose step reads S_t = S_{t-1} (diag(exp(w_t)) + a_t b_t^T) + v_t k_t^T. It computes in float32, or
    float64 where any argument is float64.

    Args:
        r: Receptances, that is queries (B, L, H, K).
        w: Logarithms of the decays (B, L, H, K), at most 0.
        k: Keys (B, L, H, K).
        v: Values (B, L, H, V).
        a: What the transition reads of the state (B, L, H, K); in RWKV-7 minus the removal key.
        b: Where it writes that (B, L, H, K); in RWKV-7 the removal key times the in-context learning rate.
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
    _check(r, w, k, v, a, b, initial_state, cu_seqlens)
    o, final_state = op(r, w, k, v, a, b, initial_state, cu_seqlens)
    return (o, final_state) if return_final_state else o


def reference(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Run the recurrence step by step; returns o (B, L, H, V) and the final state (B, H, K, V)."""
    if cu_seqlens is not None:
        return one_by_one(
            lambda r, w, k, v, a, b, state: reference(r, w, k, v, a, b, state, None),
            (r, w, k, v, a, b),
            initial_state,
            cu_seqlens,
        )
    dtype = compute_dtype(r, w, k, v, a, b, initial_state)
    decays, keys, values, reads, writes, receptances = (
        tensor.to(dtype).unbind(1) for tensor in (w.to(dtype).exp(), k, v, a, b, r)
    )
    batch_size, _, n_heads, k_dim = k.shape
    state = (
        v.new_zeros(batch_size, n_heads, k_dim, v.shape[3], dtype=dtype)
        if initial_state is None
        else initial_state.to(dtype)
    )
    outputs = [v[:, :0].to(dtype)]
    for t in range(v.shape[1]):
        held = torch.einsum("bhk,bhkv->bhv", reads[t], state)
        state = (
            decays[t].unsqueeze(-1) * state
            + writes[t].unsqueeze(-1) * held.unsqueeze(-2)
            + keys[t].unsqueeze(-1) * values[t].unsqueeze(-2)
        )
        outputs.append(torch.einsum("bhk,bhkv->bhv", receptances[t], state).unsqueeze(1))
    return torch.cat(outputs, dim=1).to(v.dtype), state.clone(memory_format=torch.contiguous_format)


def _check(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> None:
    check_shape("r", r, (None, None, None, None))
    batch_size, seq_len, n_heads, k_dim = r.shape
    for name, tensor in {"w": w, "k": k, "a": a, "b": b}.items():
        check_shape(name, tensor, r.shape)
    check_shape("v", v, (batch_size, seq_len, n_heads, None))
    check_packed(cu_seqlens, batch_size)
    rows = n_states(cu_seqlens, batch_size)
    check_shape("initial_state", initial_state, (rows, n_heads, k_dim, v.shape[3]))


def _fake(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor]:
    dtype = compute_dtype(r, w, k, v, a, b, initial_state)
    batch_size, _, n_heads, k_dim = r.shape
    rows = n_states(cu_seqlens, batch_size)
    return v.new_empty(v.shape), v.new_empty((rows, n_heads, k_dim, v.shape[3]), dtype=dtype)


def _flops(r: torch.Size, w: torch.Size, k: torch.Size, v: torch.Size, *_rest: object) -> int:  # noqa: ARG001
    """Count 9 operations for each element of the state and step, and 1 for each decay.

    An element takes the decay (1) and multiply-adds with a, b, the key and the receptance (2 each).
    """
    return r.numel() * (9 * v[3] + 1)


def _samples() -> Iterator[Sample]:
    yield Sample("plain", _arguments())
    yield Sample("state", _arguments(state=True))
    yield Sample("one-step", _arguments(seq_len=1, state=True))
    yield Sample("no-step", _arguments(seq_len=0, state=True))
    yield Sample("one-channel", _arguments(k_dim=1, v_dim=1))
    yield Sample("reads-and-writes-apart", _arguments(seq_len=40, apart=True, state=True))
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
    decay: float = 0.5,
    apart: bool = False,
    emptied: tuple[int, ...] = (),
    bounds: tuple[int, ...] | None = None,
    state: bool = False,
) -> tuple[object, ...]:
    generator = torch.Generator().manual_seed(seq_len * 100 + k_dim)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def unit() -> Tensor:
        return F.normalize(draw(*heads, k_dim), dim=-1)

    heads = (batch_size, seq_len, n_heads)
    w = -draw(*heads, k_dim).abs() * decay
    w[:, list(emptied), :, ::2] = -torch.inf
    removal = unit()
    rows = batch_size if bounds is None else len(bounds) - 1
    return (
        draw(*heads, k_dim),
        w,
        draw(*heads, k_dim),
        draw(*heads, v_dim),
        -removal,
        0.5 * unit() if apart else removal * draw(*heads, k_dim).sigmoid(),
        draw(rows, n_heads, k_dim, v_dim) if state else None,
        None if bounds is None else torch.tensor(bounds),
    )


contract = OpContract(
    name="rwkv7",
    schema=(
        "(Tensor r, Tensor w, Tensor k, Tensor v, Tensor a, Tensor b, Tensor? initial_state,"
        " Tensor? cu_seqlens) -> (Tensor o, Tensor final_state)"
    ),
    reference=reference,
    fake=_fake,
    samples=_samples,
    flops=_flops,
    constants=("cu_seqlens",),
)
op = define(contract)
