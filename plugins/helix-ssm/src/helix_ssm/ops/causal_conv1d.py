"""Short causal depthwise convolution along the sequence, with the state that streaming needs.

As in H3 and Mamba: Fu et al. 2022, https://arxiv.org/abs/2212.14052; Gu and Dao 2023,
https://arxiv.org/abs/2312.00752, section 3.4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from helix_kernel.errors import ArgumentError
from helix_kernel.ops import OpContract, Sample, define
from helix_ssm.ops._check import check_packed, check_shape, compute_dtype, n_states, segments

if TYPE_CHECKING:
    from collections.abc import Iterator


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: Literal["silu"] | None = None,
    initial_state: Tensor | None = None,
    return_final_state: bool = False,  # noqa: FBT001, FBT002 - the signature that the field knows
    cu_seqlens: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Compute y_t = act(bias + sum over k of weight_k x_{t-K+1+k}), channel by channel.

    It computes in float32, or float64 where any argument is float64.

    Args:
        x: Inputs (B, L, D).
        weight: Taps (D, K), the last one for the newest input.
        bias: Added before the activation (D,).
        activation: None or ``"silu"``.
        initial_state: The K-1 inputs before the first (B, K-1, D); zero where left out.
        return_final_state: Whether to return the last K-1 inputs too.
        cu_seqlens: Bounds (n+1,) of n sequences packed into one row, int32 or int64; states then
            have n rows.

    Returns:
        y (B, L, D); with `return_final_state` also the final state (B, K-1, D); both in the dtype
        of `x`.

    Raises:
        ArgumentError: A shape, dtype or the activation does not fit.
    """
    if activation not in (None, "silu"):
        raise ArgumentError(f"activation is {activation!r}, allowed is None or 'silu'")
    y, final_state = op(x, weight, bias, activation is not None, initial_state, cu_seqlens)
    return (y, final_state) if return_final_state else y


def reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    silu: bool,  # noqa: FBT001 - the op's schema
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Add up shifted inputs, sequence by sequence; returns y (B, L, D) and the state (B, K-1, D)."""
    if cu_seqlens is not None:
        rows = [
            reference(
                x[:, start:end],
                weight,
                bias,
                silu,
                None if initial_state is None else initial_state[i : i + 1],
                None,
            )
            for i, (start, end) in enumerate(segments(cu_seqlens, x.shape[1]))
        ]
        return torch.cat([y for y, _ in rows], dim=1), torch.cat([state for _, state in rows])
    dtype = compute_dtype(x, weight, bias, initial_state)
    width, seq_len = weight.shape[1], x.shape[1]
    before = x.new_zeros(x.shape[0], width - 1, x.shape[2]) if initial_state is None else initial_state
    padded = torch.cat([before.to(dtype), x.to(dtype)], dim=1)
    y = torch.zeros_like(padded[:, width - 1 :]) if bias is None else bias.to(dtype).expand(x.shape)
    for k in range(width):
        y = y + weight[:, k].to(dtype) * padded[:, k : k + seq_len]
    y = F.silu(y) if silu else y
    return y.to(x.dtype), padded[:, seq_len:].to(x.dtype, copy=True, memory_format=torch.contiguous_format)


def _check(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    silu: bool,  # noqa: ARG001, FBT001 - the op's schema
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> None:
    check_shape("x", x, (None, None, None))
    batch_size, _, d_model = x.shape
    check_shape("weight", weight, (d_model, None))
    if weight.shape[1] == 0:
        raise ArgumentError(f"weight has shape {tuple(weight.shape)}: at least one tap is needed")
    check_shape("bias", bias, (d_model,))
    check_packed(cu_seqlens, batch_size)
    check_shape(
        "initial_state", initial_state, (n_states(cu_seqlens, batch_size), weight.shape[1] - 1, d_model)
    )


def _fake(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,  # noqa: ARG001 - the op's schema
    silu: bool,  # noqa: ARG001, FBT001
    initial_state: Tensor | None,  # noqa: ARG001
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor]:
    rows = n_states(cu_seqlens, x.shape[0])
    return x.new_empty(x.shape), x.new_empty((rows, weight.shape[1] - 1, x.shape[2]))


def _flops(x: torch.Size, weight: torch.Size, *_rest: object) -> int:
    """Count a multiply-add for each output and tap."""
    return 2 * x.numel() * weight[1]


def _samples() -> Iterator[Sample]:
    yield Sample("plain", _arguments())
    yield Sample("everything", _arguments(bias=True, silu=True, state=True))
    yield Sample("one-step", _arguments(seq_len=1, state=True))
    yield Sample("no-step", _arguments(seq_len=0, state=True))
    yield Sample("shorter-than-the-taps", _arguments(seq_len=2, bias=True))
    yield Sample("one-tap", _arguments(width=1, silu=True, state=True))
    yield Sample("one-channel", _arguments(d_model=1, bias=True))
    yield Sample("many-threads", _arguments(batch_size=4, seq_len=40, d_model=256, silu=True, bias=True))
    yield Sample("packed", _arguments(batch_size=1, seq_len=12, bounds=(0, 1, 7, 7, 12), silu=True))
    yield Sample("packed-state", _arguments(batch_size=1, seq_len=6, bounds=(0, 4, 6), state=True, bias=True))


def _arguments(
    *,
    batch_size: int = 2,
    seq_len: int = 9,
    d_model: int = 3,
    width: int = 4,
    bounds: tuple[int, ...] | None = None,
    bias: bool = False,
    silu: bool = False,
    state: bool = False,
) -> tuple[object, ...]:
    generator = torch.Generator().manual_seed(seq_len * 100 + d_model)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    rows = batch_size if bounds is None else len(bounds) - 1
    return (
        draw(batch_size, seq_len, d_model),
        draw(d_model, width),
        draw(d_model) if bias else None,
        silu,
        draw(rows, width - 1, d_model) if state else None,
        None if bounds is None else torch.tensor(bounds),
    )


contract = OpContract(
    name="causal_conv1d",
    schema=(
        "(Tensor x, Tensor weight, Tensor? bias, bool silu, Tensor? initial_state, Tensor? cu_seqlens)"
        " -> (Tensor y, Tensor final_state)"
    ),
    reference=reference,
    fake=_fake,
    samples=_samples,
    flops=_flops,
    constants=("cu_seqlens",),
    check=_check,
)
op = define(contract)
