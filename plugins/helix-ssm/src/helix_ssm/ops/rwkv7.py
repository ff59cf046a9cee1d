"""RWKV-7's recurrence: a decaying memory from which, at each step, one direction is read and written anew.

Peng et al. 2025, "RWKV-7 Goose with Expressive Dynamic State Evolution",
https://arxiv.org/abs/2503.14456, section 4.1, in the general form of the authors' kernel: the transition
is a diagonal plus a product of any two vectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from helix_kernel.ops import OpContract, Sample, define
from helix_ssm.ops._check import check_shape
from helix_ssm.ops._matrix_samples import Case, Draws, samples
from helix_ssm.ops._matrix_state import check_heads, empty_results, recur

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
    return recur(step, (r, k, v, w, a, b), initial_state, cu_seqlens)


def step(
    state: Tensor, r: Tensor, k: Tensor, v: Tensor, w: Tensor, a: Tensor, b: Tensor
) -> tuple[Tensor, Tensor]:
    """Return o_t (B, H, V) and S_t from S_{t-1} (B, H, K, V) and one token's r, k, v, w, a and b."""
    held = torch.einsum("bhk,bhkv->bhv", a, state)
    state = (
        w.exp().unsqueeze(-1) * state
        + b.unsqueeze(-1) * held.unsqueeze(-2)
        + k.unsqueeze(-1) * v.unsqueeze(-2)
    )
    return torch.einsum("bhk,bhkv->bhv", r, state), state


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
    check_heads("r", r, v, initial_state, cu_seqlens)
    for name, tensor in {"w": w, "k": k, "a": a, "b": b}.items():
        check_shape(name, tensor, r.shape)


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
    return empty_results((r, k, v, w, a, b), initial_state, cu_seqlens)


def _flops(r: torch.Size, w: torch.Size, k: torch.Size, v: torch.Size, *_rest: object) -> int:  # noqa: ARG001
    """Count 9 operations for each element of the state and step, and 1 for each decay.

    An element takes the decay (1) and multiply-adds with a, b, the key and the receptance (2 each).
    """
    return r.numel() * (9 * v[3] + 1)


def _samples() -> Iterator[Sample]:
    yield from samples(_arguments)
    yield Sample("reads-and-writes-apart", _arguments(Case(seq_len=40, state=True), apart=True))


def _arguments(case: Case, *, apart: bool = False) -> tuple[object, ...]:
    draws = Draws(case)
    removal = draws.unit_keys()
    return (
        draws.keys(),
        draws.log_decays(case.k_dim),
        draws.keys(),
        draws.values(),
        -removal,
        0.5 * draws.unit_keys() if apart else removal * draws.keys().sigmoid(),
        draws.initial_state(),
        draws.cu_seqlens(),
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
