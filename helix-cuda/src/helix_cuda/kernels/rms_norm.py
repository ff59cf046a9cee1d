"""Root-mean-square normalisation, a program for a block of rows of one group of channels."""

import triton
import triton.language as tl

from helix_cuda.tuning import tuned

CONFIGS = [triton.Config({}, num_warps=warps) for warps in (8, 4, 16)]


@tuned(CONFIGS, key=["width", "gated"])
@triton.jit
def forward(
    x, z, weight, y, n_rows, width, x_stride, z_stride, y_stride, eps,
    gated: tl.constexpr, gate_first: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Write y of `ROWS` rows; the second axis of the grid counts groups."""
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    columns, inside = block(rows, n_rows, width, COLUMNS)
    s = tl.load(x + rows[:, None] * x_stride + columns, mask=inside, other=0.0).to(tl.float32)
    if gated:
        gate = _silu(tl.load(z + rows[:, None] * z_stride + columns, mask=inside, other=0.0).to(tl.float32))
        if gate_first:
            s = s * gate
    scale = 1.0 / tl.sqrt_rn(tl.sum(s * s, axis=1) / width + eps)
    value = s * scale[:, None] * scales_of(weight, width, COLUMNS)
    if gated and not gate_first:
        value = value * gate
    tl.store(y + rows[:, None] * y_stride + columns, value, mask=inside)


@tuned(CONFIGS, key=["width", "gated"])
@triton.jit
def backward(
    x, z, weight, grad_y, grad_x, grad_z, sums, n_rows, width, d_model, rows_per_program,
    x_stride, z_stride, y_stride, eps,
    gated: tl.constexpr, gate_first: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Write the gradients of `rows_per_program` rows, and this program's part of the weight's."""
    scales = scales_of(weight, width, COLUMNS)
    total = tl.zeros([COLUMNS], tl.float32)
    first = tl.program_id(0) * rows_per_program
    for begin in range(first, tl.minimum(first + rows_per_program, n_rows), ROWS):
        rows = (begin + tl.arange(0, ROWS)).to(tl.int64)
        at, inside = block(rows, n_rows, width, COLUMNS)
        value = tl.load(x + rows[:, None] * x_stride + at, mask=inside, other=0.0).to(tl.float32)
        grad = tl.load(grad_y + rows[:, None] * y_stride + at, mask=inside, other=0.0).to(tl.float32)
        s = value
        if gated:
            gate_input = tl.load(z + rows[:, None] * z_stride + at, mask=inside, other=0.0).to(tl.float32)
            gate = _silu(gate_input)
            if gate_first:
                s = value * gate
        scale = (1.0 / tl.sqrt_rn(tl.sum(s * s, axis=1) / width + eps))[:, None]
        normal = s * scale
        outer = grad
        if gated and not gate_first:
            outer = grad * gate
            _store_gate(grad_z, grad * normal * scales, gate_input, rows, y_stride, at, inside)
        total += tl.sum(outer * normal, axis=0)
        grad_normal = outer * scales
        projection = tl.sum(grad_normal * normal, axis=1)[:, None] / width
        grad_s = scale * (grad_normal - normal * projection)
        if gated and gate_first:
            _store_gate(grad_z, grad_s * value, gate_input, rows, y_stride, at, inside)
            grad_s = grad_s * gate
        tl.store(grad_x + rows[:, None] * y_stride + at, grad_s, mask=inside)
    within = tl.arange(0, COLUMNS)
    tl.store(
        sums + tl.program_id(0) * d_model + tl.program_id(1) * width + within, total, mask=within < width
    )


@triton.jit
def block(rows, n_rows, width, COLUMNS: tl.constexpr):
    """Return the columns of this program's group, and which of rows and columns there are."""
    within = tl.arange(0, COLUMNS)[None, :]
    return tl.program_id(1) * width + within, (rows[:, None] < n_rows) & (within < width)


@triton.jit
def scales_of(weight, width, COLUMNS: tl.constexpr):
    """Return the weight of this program's group, a row."""
    within = tl.arange(0, COLUMNS)
    scales = tl.load(weight + tl.program_id(1) * width + within, mask=within < width, other=0.0)
    return scales.to(tl.float32)[None, :]


@triton.jit
def _silu(value):
    return value * tl.sigmoid(value)


@triton.jit
def _store_gate(grad_z, grad_gate, gate_input, rows, stride, columns, inside):
    """Write the gradient of z from that of silu(z)."""
    s = tl.sigmoid(gate_input)
    tl.store(
        grad_z + rows[:, None] * stride + columns,
        grad_gate * s * (1.0 + gate_input * (1.0 - s)),
        mask=inside,
    )
