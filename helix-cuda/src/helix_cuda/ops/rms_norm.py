"""Root-mean-square normalisation with a gate after or before it."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from helix_cuda.arguments import as_given, rows, serves
from helix_cuda.kernels import rms_norm as kernels

WIDEST = 65536
"""Channels of a group that one program holds; with more, the op is left to another backend."""
_TILE = 4096
"""Elements that a program holds at once, where a row has no more."""
_PROGRAMS = 512
"""Sums of the weight's gradient that are made apart; a constant, so that devices do not differ."""


def rms_norm(
    x: Tensor,
    weight: Tensor,
    eps: float,
    z: Tensor | None,
    group_size: int,
    norm_before_gate: bool,  # noqa: FBT001 - the op's schema
) -> Any:
    """Compute the op as its contract says; not of float64, nor of groups over 65,536 channels."""
    if not serves(x, weight, z) or group_size > WIDEST:
        return NotImplemented
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    if not x.numel():
        return y
    (x_rows, x_stride), (z_rows, z_stride) = rows(x), rows(x if z is None else z)
    n_rows, d_model = x.numel() // x.shape[-1], x.shape[-1]
    columns, n_tile = tile(n_rows, group_size)
    kernels.forward[(triton.cdiv(n_rows, n_tile), d_model // group_size)](
        x_rows,
        z_rows,
        weight.contiguous(),
        y,
        n_rows,
        group_size,
        x_stride,
        z_stride,
        d_model,
        eps,
        gated=z is not None,
        gate_first=not norm_before_gate,
        COLUMNS=columns,
        ROWS=n_tile,
    )
    return y


def rms_norm_backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    eps: float,
    z: Tensor | None,
    group_size: int,
    norm_before_gate: bool,  # noqa: FBT001 - the op's schema
) -> Any:
    """Compute the op's gradient as its contract says; declines what the op does."""
    if not serves(x, weight, z) or group_size > WIDEST:
        return NotImplemented
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    grad_z = None if z is None else torch.empty_like(grad_x, dtype=z.dtype)
    if not x.numel():
        return as_given((grad_x, torch.zeros_like(weight), grad_z), (x, weight, z))
    (x_rows, x_stride), (z_rows, z_stride) = rows(x), rows(x if z is None else z)
    n_rows, d_model = x.numel() // x.shape[-1], x.shape[-1]
    columns, n_tile = tile(n_rows, group_size)
    rows_per_program = share(n_rows, n_tile)
    n_programs = triton.cdiv(n_rows, rows_per_program)
    sums = torch.empty(n_programs, d_model, dtype=torch.float32, device=x.device)
    kernels.backward[(n_programs, d_model // group_size)](
        x_rows,
        z_rows,
        weight.contiguous(),
        grad_y.contiguous(),
        grad_x,
        grad_x if grad_z is None else grad_z,
        sums,
        n_rows,
        group_size,
        d_model,
        rows_per_program,
        x_stride,
        z_stride,
        d_model,
        eps,
        gated=z is not None,
        gate_first=not norm_before_gate,
        COLUMNS=columns,
        ROWS=n_tile,
    )
    return as_given((grad_x, sums.sum(0), grad_z), (x, weight, z))


def tile(n_rows: int, group_size: int) -> tuple[int, int]:
    """Return how many channels and rows a program holds at once, powers of two."""
    columns = triton.next_power_of_2(group_size)
    return columns, min(max(_TILE // columns, 1), triton.next_power_of_2(n_rows))


def share(n_rows: int, n_tile: int) -> int:
    """Return how many rows a program of a gradient takes, whole tiles."""
    fewest = -(-n_rows // _PROGRAMS)
    return -(-fewest // n_tile) * n_tile
