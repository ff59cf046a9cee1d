"""State-space duality: the recurrence of Mamba-2, whose heads each decay by one number a token.

Dao and Gu 2024, "Transformers are SSMs", https://arxiv.org/abs/2405.21060, definition 2.1 with the
scalar-times-identity A of section 5, discretised as in their code: zero-order hold for A, Euler for B.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from helix_kernel.errors import ArgumentError
from helix_kernel.ops import OpContract, Sample, define
from helix_ssm.ops._check import check_packed, check_shape, compute_dtype, n_states
from helix_ssm.ops._sequences import one_by_one

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CHUNK = 64
"""Tokens in a chunk of the chunked form, which is the form whose FLOPs are counted."""


def ssd_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,  # noqa: FBT001, FBT002 - the signature that the field knows
    dt_limit: Sequence[float] | None = None,
    initial_state: Tensor | None = None,
    return_final_state: bool = False,  # noqa: FBT001, FBT002 - as above
    cu_seqlens: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Run h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T and y_t = h_t C_t + D x_t in each head.

    It computes in float32, or float64 where any argument is float64. There is no gate: Mamba-2's
    is part of the norm that follows.

    Args:
        x: Inputs (B, L, H, P): H heads of P channels.
        dt: Step sizes (B, L, H), before bias, softplus and limit.
        A: Continuous-time decay rates (H,), or (B, L, H) where they depend on the token; negative for a
            stable state.
        B: Input projections (B, L, G, N), one for each H/G heads.
        C: Output projections, shaped as `B`.
        D: Skip weights (H,) or (H, P).
        dt_bias: Added to `dt` (H,).
        dt_softplus: Whether to pass `dt` plus bias through softplus.
        dt_limit: Smallest and largest step size; what lies outside is set to the nearer one.
        initial_state: State before the first step (B, H, P, N); zero where left out.
        return_final_state: Whether to return the state after the last step too.
        cu_seqlens: Bounds (n+1,) of n sequences packed into one row, int32 or int64; states then
            have n rows.

    Returns:
        y (B, L, H, P) in the dtype of `x`; with `return_final_state` also the final state
        (B, H, P, N), in float32 or float64.

    Raises:
        ArgumentError: A shape does not fit, or `dt_limit` is not a smaller and a larger number.
    """
    y, final_state = op(x, dt, A, B, C, D, dt_bias, dt_softplus, dt_limit, initial_state, cu_seqlens)
    return (y, final_state) if return_final_state else y


def reference(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    dt_softplus: bool,  # noqa: FBT001 - the op's schema
    dt_limit: Sequence[float] | None,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Run the recurrence step by step; returns y (B, L, H, P) and the final state (B, H, P, N)."""
    if cu_seqlens is not None:

        def run(
            x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None
        ) -> tuple[Tensor, Tensor]:
            return reference(x, dt, A, B, C, D, dt_bias, dt_softplus, dt_limit, state, cu_seqlens=None)

        return one_by_one(run, (x, dt, A.expand(dt.shape), B, C), initial_state, cu_seqlens)
    dtype = compute_dtype(x, dt, A, B, C, D, dt_bias, initial_state)
    u = x.to(dtype)
    dt = dt.to(dtype) if dt_bias is None else dt.to(dtype) + dt_bias.to(dtype)
    dt = F.softplus(dt) if dt_softplus else dt
    dt = dt if dt_limit is None else dt.clamp(*dt_limit)
    decay = torch.exp(dt * A.to(dtype))
    n_heads, n_groups = x.shape[2], B.shape[2]
    inputs, outputs = (
        projection.to(dtype).repeat_interleave(n_heads // n_groups, dim=2) for projection in (B, C)
    )
    h = u.new_zeros(*_state_shape(x, B, x.shape[0])) if initial_state is None else initial_state.to(dtype)
    ys = [u[:, :0]]
    for t in range(x.shape[1]):
        written = (dt[:, t, :, None] * u[:, t])[..., None] * inputs[:, t, :, None]
        h = decay[:, t, :, None, None] * h + written
        ys.append((h * outputs[:, t, :, None]).sum(-1)[:, None])
    y = torch.cat(ys, dim=1)
    if D is not None:
        y = y + (D if D.dim() == 2 else D[:, None]).to(dtype) * u
    return y.to(x.dtype), h.clone()


def _state_shape(x: Tensor, B: Tensor, rows: int) -> tuple[int, int, int, int]:
    return rows, x.shape[2], x.shape[3], B.shape[3]


def _check(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    dt_softplus: bool,  # noqa: ARG001, FBT001 - the op's schema
    dt_limit: Sequence[float] | None,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> None:
    check_shape("x", x, (None, None, None, None))
    batch_size, seq_len, n_heads, head_dim = x.shape
    check_shape("dt", dt, (batch_size, seq_len, n_heads))
    check_shape("A", A, dt.shape if A.dim() == 3 else (n_heads,))
    check_shape("B", B, (batch_size, seq_len, None, None))
    check_shape("C", C, B.shape)
    n_groups = B.shape[2]
    if n_groups == 0 or n_heads % n_groups:
        raise ArgumentError(f"B has {n_groups} groups, which do not divide the {n_heads} heads of x")
    check_shape("D", D, (n_heads,) if D is None or D.dim() != 2 else (n_heads, head_dim))
    check_shape("dt_bias", dt_bias, (n_heads,))
    if dt_limit is not None and not (len(dt_limit) == 2 and dt_limit[0] <= dt_limit[1]):
        raise ArgumentError(f"dt_limit is {dt_limit!r}, allowed is (smallest, largest)")
    check_packed(cu_seqlens, batch_size)
    check_shape("initial_state", initial_state, _state_shape(x, B, n_states(cu_seqlens, batch_size)))


def _fake(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    dt_softplus: bool,  # noqa: ARG001, FBT001 - the op's schema
    dt_limit: Sequence[float] | None,  # noqa: ARG001 - as above
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor]:
    dtype = compute_dtype(x, dt, A, B, C, D, dt_bias, initial_state)
    shape = _state_shape(x, B, n_states(cu_seqlens, x.shape[0]))
    return x.new_empty(x.shape), x.new_empty(shape, dtype=dtype)


def _flops(x: torch.Size, dt: torch.Size, A: torch.Size, B: torch.Size, *_rest: object) -> int:  # noqa: ARG001
    """Count the chunked form (section 6 of the paper), whose chunks of T tokens have whole squares.

    A chunk takes C B^T (2 T² N a group) and, a head, the decays and their product with it (4 T²),
    that times the inputs (2 T² P), the inputs into the state and the state into the outputs
    (4 T P N), the state's decay (2 P N), and dt x and D x (3 T P).
    """
    (batch_size, seq_len, n_heads, P), (n_groups, N) = x, B[2:]
    return batch_size * sum(
        n_groups * 2 * T * T * N + n_heads * (T * T * (2 * P + 4) + 4 * T * P * N + 2 * P * N + 3 * T * P)
        for T in _chunk_lens(seq_len)
    )


def _backward_flops(x: torch.Size, dt: torch.Size, A: torch.Size, B: torch.Size, *_rest: object) -> int:  # noqa: ARG001
    """Count the gradient of the chunked form.

    A chunk takes C B^T and a product of its gradient with each of B and C (6 T² N a group). A head
    takes the gradients of the masked matrix and of its inputs (4 T² P), a dozen operations to go
    through the mask (12 T²), the state again (2 T P N) and the gradients of its two products
    (8 T P N), their decays (6 T N), the states' (6 P N), and those of x, dt and D (9 T P).
    """
    (batch_size, seq_len, n_heads, P), (n_groups, N) = x, B[2:]
    return batch_size * sum(
        n_groups * 6 * T * T * N
        + n_heads * (T * T * (4 * P + 12) + 10 * T * P * N + 6 * T * N + 6 * P * N + 9 * T * P)
        for T in _chunk_lens(seq_len)
    )


def _chunk_lens(seq_len: int) -> list[int]:
    return [min(CHUNK, seq_len - start) for start in range(0, seq_len, CHUNK)]


def _samples() -> Iterator[Sample]:
    yield Sample("plain", _arguments())
    yield Sample("everything", _arguments(D=(4,), bias=True, softplus=True, limit=(0.1, 1.5), state=True))
    yield Sample("one-step", _arguments(seq_len=1, state=True))
    yield Sample("no-step", _arguments(seq_len=0, state=True))
    yield Sample("whole-chunks", _arguments(seq_len=CHUNK, D=(4, 3)))
    yield Sample("over-two-chunks", _arguments(seq_len=2 * CHUNK + 5, groups=2, D=(4,), state=True))
    yield Sample("strong-decay", _arguments(seq_len=21, decay=20.0, state=True))
    yield Sample("a-rate-a-token", _arguments(seq_len=9, rates=(2, 9, 4), groups=2, state=True))
    yield Sample("growth", _arguments(seq_len=9, decay=-0.1))
    yield Sample("one-head", _arguments(n_heads=1, groups=1, bias=True))
    yield Sample("a-group-a-head", _arguments(groups=4, softplus=True))
    yield Sample("one-channel-one-state", _arguments(head_dim=1, d_state=1, D=(4,)))
    yield Sample("many-threads", _arguments(batch_size=4, seq_len=20, n_heads=8, head_dim=32, d_state=32))
    yield Sample("packed", _arguments(batch_size=1, seq_len=21, bounds=(0, 1, 5, 16, 16, 21), D=(4,)))
    yield Sample("packed-state", _arguments(batch_size=1, seq_len=9, bounds=(0, 8, 9), state=True, groups=2))
    yield Sample("packed-rates", _arguments(batch_size=1, seq_len=9, bounds=(0, 5, 9), rates=(1, 9, 4)))


def _arguments(
    *,
    batch_size: int = 2,
    seq_len: int = 7,
    n_heads: int = 4,
    head_dim: int = 3,
    d_state: int = 5,
    groups: int = 1,
    decay: float = 1.0,
    rates: tuple[int, ...] | None = None,
    bounds: tuple[int, ...] | None = None,
    D: tuple[int, ...] | None = None,
    bias: bool = False,
    softplus: bool = False,
    limit: tuple[float, float] | None = None,
    state: bool = False,
) -> tuple[object, ...]:
    generator = torch.Generator().manual_seed(seq_len * 100 + n_heads)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    steps = draw(batch_size, seq_len, n_heads)
    rows = batch_size if bounds is None else len(bounds) - 1
    return (
        draw(batch_size, seq_len, n_heads, head_dim),
        steps if softplus else steps.abs() * 0.5,
        -decay * draw(*(rates or (n_heads,))).exp(),
        draw(batch_size, seq_len, groups, d_state),
        draw(batch_size, seq_len, groups, d_state),
        None if D is None else draw(*D),
        draw(n_heads) * 0.1 if bias else None,
        softplus,
        None if limit is None else list(limit),
        draw(rows, n_heads, head_dim, d_state) if state else None,
        None if bounds is None else torch.tensor(bounds),
    )


contract = OpContract(
    name="ssd_scan",
    schema=(
        "(Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? dt_bias, bool dt_softplus,"
        " float[]? dt_limit, Tensor? initial_state, Tensor? cu_seqlens)"
        " -> (Tensor y, Tensor final_state)"
    ),
    reference=reference,
    fake=_fake,
    samples=_samples,
    flops=_flops,
    backward_flops=_backward_flops,
    constants=("cu_seqlens",),
    check=_check,
)
op = define(contract)
