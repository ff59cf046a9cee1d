"""What is mended in Triton's interpreter: bfloat16 is rounded and multiplied as on a GPU."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIDE = 16


@triton.jit
def _round(x, out, n, SIDE: tl.constexpr):
    for i in range(n):
        at = i * SIDE + tl.arange(0, SIDE)
        tl.store(out + at, tl.load(x + at).to(tl.bfloat16))


@triton.jit
def _multiply(a, b, out, SIDE: tl.constexpr):
    at = tl.arange(0, SIDE)[:, None] * SIDE + tl.arange(0, SIDE)[None, :]
    tl.store(out + at, tl.dot(tl.load(a + at), tl.load(b + at)))


def test_float32_is_rounded_to_bfloat16_as_torch_does():
    x = torch.randn(4, SIDE, device=DEVICE)
    x[0, :6] = torch.tensor([0.0, -0.0, torch.inf, 1 + 2**-8, 1 + 3 * 2**-8, 2 - 2**-9])
    out = torch.empty_like(x, dtype=torch.bfloat16)
    _round[(1,)](x, out, x.shape[0], SIDE=SIDE)
    assert torch.equal(out, x.bfloat16())


def test_products_of_bfloat16_are_those_of_the_numbers():
    a, b = (torch.randn(SIDE, SIDE, device=DEVICE).bfloat16() for _ in range(2))
    out = torch.empty(SIDE, SIDE, device=DEVICE)
    _multiply[(1,)](a, b, out, SIDE=SIDE)
    torch.testing.assert_close(out, a.float() @ b.float())


@pytest.mark.skipif(DEVICE == "cuda", reason="of processes that interpret")
def test_shapes_have_one_type_whichever_way_they_are_written():
    core = tl.core
    if not hasattr(core, "_type_for_tuple_values"):
        pytest.skip("this Triton makes no types of tuples by themselves")
    shape = core.tuple([2, 3])
    assert shape.type is core.tuple([core.constexpr(2), 3]).type
    assert shape.type != core.tuple([3, 2]).type
    assert [each.value for each in core.tuple([True, 1.0]).type.types] == [True, 1.0]
