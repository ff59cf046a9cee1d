"""Selective scan: the input-dependent diagonal state-space recurrence of Mamba.

Gu and Dao 2023, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces",
https://arxiv.org/abs/2312.00752, section 3.2, with the discretisation of their code: zero-order
hold for A, Euler for B.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from helix_kernel.errors import ArgumentError
from helix_kernel.ops import OpContract, Sample, define
from helix_ssm.ops._check import check_packed, check_shape, compute_dtype, n_states, segments

if TYPE_CHECKING:
    from collections.abc import Iterator

INTERVAL = 16
"""Steps from one saved state to the next; the backward op starts again from these and the initial one."""


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,  # noqa: FBT001, FBT002 - the signature that the field knows
    initial_state: Tensor | None = None,
    return_final_state: bool = False,  # noqa: FBT001, FBT002 - as above
    cu_seqlens: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Run h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t, y_t = C_t h_t + D u_t, then y_t silu(z_t).

    It computes in float32, or float64 where any argument is float64.

    Args:
        u: Inputs (B, L, D).
        delta: Step sizes dt (B, L, D), before bias and softplus.
        A: Continuous-time decay rates (D, N), real; negative for a stable state.
        B: Input projections (B, L, N), or (B, L, G, N) with one for each D/G channels.
        C: Output projections, shaped as `B`.
        D: Skip weights (D,).
        z: Gate (B, L, D).
        delta_bias: Added to `delta` (D,).
        delta_softplus: Whether to pass `delta` plus bias through softplus.
        initial_state: State before the first step (B, D, N); zero where left out.
        return_final_state: Whether to return the state after the last step too.
        cu_seqlens: Bounds (n+1,) of n sequences packed into one row, int32 or int64; states then
            have n rows.

    Returns:
        y (B, L, D) in the dtype of `u`; with `return_final_state` also the final state (B, D, N),
        in float32 or float64.

    Raises:
        ArgumentError: A shape or dtype does not fit.
    """
    y, final_state, _ = op(u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, cu_seqlens)
    return (y, final_state) if return_final_state else y


def reference(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,  # noqa: FBT001 - the op's schema
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the recurrence step by step.

    Returns:
        y (B, L, D); the final state (B, D, N); for the backward op the states before steps
        INTERVAL, 2 INTERVAL, …, laid out ((L - 1) / INTERVAL, B, G, N, D / G): none of a row that is
        one chunk, such as a decoding step, and none of a packed row, whose chunks begin where its
        sequences do.
    """
    if cu_seqlens is not None:
        return _packed(u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, cu_seqlens)
    dtype = compute_dtype(u, delta, A, B, C, D, z, delta_bias, initial_state)
    x, A = u.to(dtype), A.to(dtype)
    dt = delta.to(dtype) if delta_bias is None else delta.to(dtype) + delta_bias.to(dtype)
    dt = F.softplus(dt) if delta_softplus else dt
    inputs, outputs = (_per_channel(projection.to(dtype), u.shape[2]) for projection in (B, C))
    h = x.new_zeros(u.shape[0], *A.shape) if initial_state is None else initial_state.to(dtype)
    ys, states = [x[:, :0]], []
    for t in range(u.shape[1]):
        if t and t % INTERVAL == 0:
            states.append(h)
        h = torch.exp(dt[:, t, :, None] * A) * h + (dt * x)[:, t, :, None] * inputs[:, t]
        ys.append((h * outputs[:, t]).sum(-1)[:, None])
    y = torch.cat(ys, dim=1)
    y = y if D is None else y + D.to(dtype) * x
    y = y if z is None else y * F.silu(z.to(dtype))
    return y.to(u.dtype), h.clone(), _lay_out(states, h, groups=B.shape[2] if B.dim() == 4 else 1)


def _packed(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,  # noqa: FBT001 - the op's schema
    initial_state: Tensor | None,
    cu_seqlens: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run each of the packed sequences by itself."""
    ys, finals = [], []
    for i, (start, end) in enumerate(segments(cu_seqlens, u.shape[1])):
        gate = None if z is None else z[:, start:end]
        state = None if initial_state is None else initial_state[i : i + 1]
        x, dt, inputs, outputs = (tensor[:, start:end] for tensor in (u, delta, B, C))
        y, final, states = reference(
            x, dt, A, inputs, outputs, D, gate, delta_bias, delta_softplus, state, None
        )
        ys.append(y)
        finals.append(final)
    return torch.cat(ys, dim=1), torch.cat(finals), states.new_empty(0, *states.shape[1:])


def _lay_out(states: list[Tensor], like: Tensor, groups: int) -> Tensor:
    """Stack states (B, D, N) as (chunks, B, G, N, D / G)."""
    batch_size, d_model, d_state = like.shape
    stacked = torch.stack(states) if states else like.new_empty(0, *like.shape)
    grouped = stacked.reshape(len(states), batch_size, groups, d_model // groups, d_state)
    return grouped.transpose(3, 4).clone(memory_format=torch.contiguous_format)


def _per_channel(projection: Tensor, d_model: int) -> Tensor:
    """Lay (B, L, N) or (B, L, G, N) out so that it broadcasts against (B, L, D, N)."""
    if projection.dim() == 3:
        return projection.unsqueeze(2)
    return projection.repeat_interleave(d_model // projection.shape[2], dim=2)


def _check(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,  # noqa: ARG001, FBT001 - the op's schema
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> None:
    check_shape("u", u, (None, None, None))
    batch_size, seq_len, d_model = u.shape
    check_shape("delta", delta, u.shape)
    check_shape("A", A, (d_model, None))
    d_state = A.shape[1]
    groups = (B.shape[2],) if B.dim() == 4 else ()
    check_shape("B", B, (batch_size, seq_len, *groups, d_state))
    check_shape("C", C, B.shape)
    if groups and (groups[0] == 0 or d_model % groups[0]):
        raise ArgumentError(f"B has {groups[0]} groups, which do not divide the {d_model} channels of u")
    check_shape("D", D, (d_model,))
    check_shape("z", z, u.shape)
    check_shape("delta_bias", delta_bias, (d_model,))
    check_packed(cu_seqlens, batch_size)
    check_shape("initial_state", initial_state, (n_states(cu_seqlens, batch_size), d_model, d_state))
    if A.is_complex():
        raise ArgumentError(f"A has dtype {A.dtype}, allowed is a real floating dtype")


def _fake(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,  # noqa: ARG001, FBT001 - the op's schema
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = compute_dtype(u, delta, A, B, C, D, z, delta_bias, initial_state)
    batch_size, seq_len, d_model = u.shape
    groups = B.shape[2] if B.dim() == 4 else 1
    n_saved = 0 if cu_seqlens is not None else max(seq_len - 1, 0) // INTERVAL
    return (
        u.new_empty(u.shape),
        u.new_empty((n_states(cu_seqlens, batch_size), *A.shape), dtype=dtype),
        u.new_empty((n_saved, batch_size, groups, A.shape[1], d_model // groups), dtype=dtype),
    )


def _flops(u: torch.Size, delta: torch.Size, A: torch.Size, *_rest: object) -> int:  # noqa: ARG001
    """Count 7 operations for each channel, state and step, and 3 for each channel and step.

    A state takes dt A and its exponential (2), times h (1), plus dt u times B (2), and a
    multiply-add with C (2); a channel takes dt u (1) and a multiply-add with D (2).
    """
    batch_size, seq_len, d_model = u
    return batch_size * seq_len * d_model * (7 * A[1] + 3)


def _backward_flops(*shapes: torch.Size) -> int:
    """Count the forward again, to recompute the states, and 13 operations for each state.

    These are C dy plus the gradient of the next step's state (3), the products that give dC, dB
    and d(dt u) (2 each), and those through the exponential to d(dt) and dA (4).
    """
    batch_size, seq_len, d_model = shapes[0]
    return _flops(*shapes) + 13 * batch_size * seq_len * d_model * shapes[2][1]


def _samples() -> Iterator[Sample]:
    yield Sample("plain", _arguments())
    yield Sample("everything", _arguments(D=True, z=True, bias=True, softplus=True, state=True))
    yield Sample("one-step", _arguments(seq_len=1, state=True))
    yield Sample("no-step", _arguments(seq_len=0, state=True))
    yield Sample("whole-intervals", _arguments(seq_len=2 * INTERVAL, z=True))
    yield Sample("over-an-interval", _arguments(seq_len=2 * INTERVAL + 3, state=True, D=True))
    yield Sample("one-channel", _arguments(d_model=1, bias=True))
    yield Sample("one-state", _arguments(d_state=1, softplus=True))
    yield Sample("groups", _arguments(groups=2, D=True, seq_len=INTERVAL + 1))
    yield Sample("many-threads", _arguments(batch_size=5, seq_len=INTERVAL + 2, d_model=512, d_state=16))
    yield Sample("packed", _arguments(batch_size=1, seq_len=21, bounds=(0, 1, 5, 16, 16, 21), z=True))
    yield Sample("packed-state", _arguments(batch_size=1, seq_len=9, bounds=(0, 8, 9), state=True, groups=2))


def _arguments(
    *,
    batch_size: int = 2,
    seq_len: int = 7,
    d_model: int = 4,
    d_state: int = 3,
    groups: int | None = None,
    bounds: tuple[int, ...] | None = None,
    D: bool = False,
    z: bool = False,
    bias: bool = False,
    softplus: bool = False,
    state: bool = False,
) -> tuple[object, ...]:
    generator = torch.Generator().manual_seed(seq_len * 100 + d_model)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x = (batch_size, seq_len, d_model)
    projection = (batch_size, seq_len, *(() if groups is None else (groups,)), d_state)
    delta = draw(*x) if softplus else draw(*x).abs() * 0.5
    rows = batch_size if bounds is None else len(bounds) - 1
    return (
        draw(*x),
        delta,
        -draw(d_model, d_state).exp(),
        draw(*projection),
        draw(*projection),
        draw(d_model) if D else None,
        draw(*x) if z else None,
        draw(d_model) * 0.1 if bias else None,
        softplus,
        draw(rows, d_model, d_state) if state else None,
        None if bounds is None else torch.tensor(bounds),
    )


contract = OpContract(
    name="selective_scan",
    schema=(
        "(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias,"
        " bool delta_softplus, Tensor? initial_state, Tensor? cu_seqlens)"
        " -> (Tensor y, Tensor final_state, Tensor states)"
    ),
    reference=reference,
    fake=_fake,
    samples=_samples,
    flops=_flops,
    backward_flops=_backward_flops,
    saved=("states",),
    constants=("cu_seqlens",),
    check=_check,
)
op = define(contract)
