"""A residual's sum and its root-mean-square norm, a program for a block of rows.

One pass over memory: x and the residual are read, the norm and the sum are written, where two ops would write
the sum and read it again.
"""

import triton
import triton.language as tl

from helix_cuda.kernels.rms_norm import CONFIGS, block, scales_of
from helix_cuda.tuning import tuned


@tuned(CONFIGS, key=["width"])
@triton.jit
def forward(
    x, residual, weight, y, total, n_rows, width, x_stride, residual_stride, eps,
    COLUMNS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Write y and the sum of `ROWS` rows."""
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    columns, inside = block(rows, n_rows, width, COLUMNS)
    s = _sum(
        x + rows[:, None] * x_stride,
        residual + rows[:, None] * residual_stride,
        columns,
        inside,
        total.dtype.element_ty,
    )
    tl.store(total + rows[:, None] * width + columns, s, mask=inside)
    s = s.to(tl.float32)
    scale = 1.0 / tl.sqrt_rn(tl.sum(s * s, axis=1) / width + eps)
    value = s * scale[:, None] * scales_of(weight, width, COLUMNS)
    tl.store(y + rows[:, None] * width + columns, value, mask=inside)


@tuned(CONFIGS, key=["width"])
@triton.jit
def backward(
    x, residual, weight, grad_y, grad_total, grad_x, grad_residual, sums, n_rows, width, rows_per_program,
    x_stride, residual_stride, eps, has_total: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Write the gradients of `rows_per_program` rows, and this program's part of the weight's."""
    scales = scales_of(weight, width, COLUMNS)
    partial = tl.zeros([COLUMNS], tl.float32)
    first = tl.program_id(0) * rows_per_program
    for begin in range(first, tl.minimum(first + rows_per_program, n_rows), ROWS):
        rows = (begin + tl.arange(0, ROWS)).to(tl.int64)
        at, inside = block(rows, n_rows, width, COLUMNS)
        s = _sum(
            x + rows[:, None] * x_stride,
            residual + rows[:, None] * residual_stride,
            at,
            inside,
            grad_y.dtype.element_ty,
        )
        s = s.to(tl.float32)
        grad = tl.load(grad_y + rows[:, None] * width + at, mask=inside, other=0.0).to(tl.float32)
        scale = (1.0 / tl.sqrt_rn(tl.sum(s * s, axis=1) / width + eps))[:, None]
        normal = s * scale
        partial += tl.sum(grad * normal, axis=0)
        grad_normal = grad * scales
        projection = tl.sum(grad_normal * normal, axis=1)[:, None] / width
        grad_s = scale * (grad_normal - normal * projection)
        if has_total:
            grad_s += tl.load(grad_total + rows[:, None] * width + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(grad_x + rows[:, None] * width + at, grad_s, mask=inside)
        tl.store(grad_residual + rows[:, None] * width + at, grad_s, mask=inside)
    within = tl.arange(0, COLUMNS)
    tl.store(sums + tl.program_id(0) * width + within, partial, mask=within < width)


@triton.jit
def _sum(x, residual, columns, inside, dtype: tl.constexpr):
    """Return the sum as it is kept: rounded."""
    left = tl.load(x + columns, mask=inside, other=0.0).to(tl.float32)
    return (left + tl.load(residual + columns, mask=inside, other=0.0).to(tl.float32)).to(dtype)
