"""Diagonal scan: the elementwise linear recurrence h_t = a_t h_{t-1} + b_t, real or complex.

The recurrence below S5 (Smith et al. 2023, https://arxiv.org/abs/2208.04933, section 2.2), RG-LRU (De et
al. 2024, https://arxiv.org/abs/2402.19427, section 2.4) and minGRU (Feng et al. 2024,
https://arxiv.org/abs/2410.01201, section 3.1), as Blelloch 1990, "Prefix Sums and Their Applications",
section 1.4, has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from helix_kernel.errors import ArgumentError
from helix_kernel.ops import OpContract, Sample, define
from helix_ssm.ops._check import check_packed, check_shape, compute_dtype, n_states, segments

if TYPE_CHECKING:
    from collections.abc import Iterator


def diagonal_scan(
    a: Tensor,
    b: Tensor,
    initial_state: Tensor | None = None,
    return_final_state: bool = False,  # noqa: FBT001, FBT002 - the signature that the field knows
    cu_seqlens: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Run h_t = a_t h_{t-1} + b_t, channel by channel.

    It computes in float32, or float64 where any argument is that wide; in complex64 or complex128 where
    the arguments are complex.

    Args:
        a: Factors (B, L, D), or (D,) where they do not depend on the token; any size, 0 among them.
        b: Inputs (B, L, D), complex where `a` is.
        initial_state: State before the first step (B, D), complex where `a` is; zero where left out.
        return_final_state: Whether to return the state after the last step too.
        cu_seqlens: Bounds (n+1,) of n sequences packed into one row, int32 or int64; states then
            have n rows.

    Returns:
        h (B, L, D) in the dtype of `b`; with `return_final_state` also the final state (B, D), in the
        dtype that it is computed in.

    Raises:
        ArgumentError: A shape or dtype does not fit.
    """
    _check(a, b, initial_state, cu_seqlens)
    h, final_state = op(a, b, initial_state, cu_seqlens)
    return (h, final_state) if return_final_state else h


def reference(
    a: Tensor, b: Tensor, initial_state: Tensor | None, cu_seqlens: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Run the recurrence step by step; returns h (B, L, D) and the state after the last one (B, D)."""
    if cu_seqlens is not None:
        return _packed(a, b, initial_state, cu_seqlens)
    dtype = compute_dtype(a, b, initial_state)
    factors, inputs = a.to(dtype).expand(b.shape), b.to(dtype)
    h = torch.zeros_like(inputs[:, :0].sum(1)) if initial_state is None else initial_state.to(dtype)
    hs = [inputs[:, :0]]
    for t in range(b.shape[1]):
        h = factors[:, t] * h + inputs[:, t]
        hs.append(h[:, None])
    return torch.cat(hs, dim=1).to(b.dtype), h.clone()


def _packed(a: Tensor, b: Tensor, initial_state: Tensor | None, cu_seqlens: Tensor) -> tuple[Tensor, Tensor]:
    """Run each of the packed sequences by itself."""
    rows = [
        reference(
            a if a.dim() == 1 else a[:, start:end],
            b[:, start:end],
            None if initial_state is None else initial_state[i : i + 1],
            None,
        )
        for i, (start, end) in enumerate(segments(cu_seqlens, b.shape[1]))
    ]
    return torch.cat([h for h, _ in rows], dim=1), torch.cat([state for _, state in rows])


def _check(a: Tensor, b: Tensor, initial_state: Tensor | None, cu_seqlens: Tensor | None) -> None:
    check_shape("b", b, (None, None, None))
    batch_size, _, d_model = b.shape
    check_shape("a", a, (d_model,) if a.dim() == 1 else b.shape)
    check_packed(cu_seqlens, batch_size)
    check_shape("initial_state", initial_state, (n_states(cu_seqlens, batch_size), d_model))
    for name, tensor in (("b", b), ("initial_state", initial_state)):
        if tensor is not None and tensor.is_complex() != a.is_complex():
            raise ArgumentError(
                f"{name} has dtype {tensor.dtype} and a has {a.dtype}, allowed is both real or both complex"
            )
    if not (a.is_complex() or a.is_floating_point()):
        raise ArgumentError(f"a has dtype {a.dtype}, allowed is a floating or complex dtype")


def _fake(
    a: Tensor, b: Tensor, initial_state: Tensor | None, cu_seqlens: Tensor | None
) -> tuple[Tensor, Tensor]:
    dtype = compute_dtype(a, b, initial_state)
    state = (n_states(cu_seqlens, b.shape[0]), b.shape[2])
    return b.new_empty(b.shape), b.new_empty(state, dtype=dtype)


def _flops(a: torch.Size, b: torch.Size, *_rest: object) -> int:  # noqa: ARG001 - the op's schema
    """Count a multiply-add for each channel and step, as if it were real: shapes do not tell."""
    return 2 * b.numel()


def _backward_flops(a: torch.Size, b: torch.Size, *_rest: object) -> int:  # noqa: ARG001 - as above
    """Count the forward again, the same scan back in time, and the product that gives da."""
    return 5 * b.numel()


def _samples() -> Iterator[Sample]:
    for kind, is_complex in (("", False), ("complex-", True)):
        yield Sample(f"{kind}plain", _arguments(is_complex=is_complex))
        yield Sample(f"{kind}state", _arguments(is_complex=is_complex, state=True))
        yield Sample(
            f"{kind}same-for-each-token", _arguments(is_complex=is_complex, constant=True, state=True)
        )
        yield Sample(
            f"{kind}packed",
            _arguments(is_complex=is_complex, batch_size=1, seq_len=21, bounds=(0, 1, 5, 16, 16, 21)),
        )
    yield Sample("one-step", _arguments(seq_len=1, state=True))
    yield Sample("no-step", _arguments(seq_len=0, state=True))
    yield Sample("one-channel", _arguments(d_model=1, seq_len=5))
    yield Sample("zeros", _arguments(scale=0.0, state=True))
    yield Sample("tiny", _arguments(scale=1e-30, seq_len=40, state=True))
    yield Sample("growing", _arguments(scale=2.0, seq_len=30, state=True))
    yield Sample("many-threads", _arguments(batch_size=5, seq_len=83, d_model=512, state=True))
    yield Sample(
        "packed-state",
        _arguments(batch_size=1, seq_len=9, bounds=(0, 0, 8, 9), state=True, constant=True),
    )


def _arguments(
    *,
    batch_size: int = 2,
    seq_len: int = 7,
    d_model: int = 4,
    bounds: tuple[int, ...] | None = None,
    is_complex: bool = False,
    constant: bool = False,
    state: bool = False,
    scale: float = 1.0,
) -> tuple[object, ...]:
    generator = torch.Generator().manual_seed(seq_len * 100 + d_model)
    dtype = torch.complex128 if is_complex else torch.float64

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype)

    rows = batch_size if bounds is None else len(bounds) - 1
    a = draw(d_model) if constant else draw(batch_size, seq_len, d_model)
    return (
        # Factors of size at most `scale`, with any sign or phase.
        scale * a / (1 + a.abs()),
        draw(batch_size, seq_len, d_model),
        draw(rows, d_model) if state else None,
        None if bounds is None else torch.tensor(bounds),
    )


contract = OpContract(
    name="diagonal_scan",
    schema=(
        "(Tensor a, Tensor b, Tensor? initial_state, Tensor? cu_seqlens) -> (Tensor h, Tensor final_state)"
    ),
    reference=reference,
    fake=_fake,
    samples=_samples,
    flops=_flops,
    backward_flops=_backward_flops,
    constants=("cu_seqlens",),
)
op = define(contract)
