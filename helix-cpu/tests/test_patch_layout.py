"""Copies into the kernels' layout hold the same numbers, whatever the sizes, strides and threads."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_cpu.transformers.layout import _copy, steps

SIZES = st.integers(0, 70)


@given(batch_size=st.integers(0, 3), d_model=SIZES, seq_len=SIZES)
@settings(deadline=None, max_examples=60)
def test_any_size(batch_size, d_model, seq_len):
    x = torch.randn(batch_size, d_model, seq_len)
    assert torch.equal(_copy(x), x.transpose(1, 2))


def test_each_instruction_set(isa):
    x = torch.randn(2, 67, 131)
    assert torch.equal(_copy(x), x.transpose(1, 2))


@pytest.mark.parametrize(
    "view", [lambda x: x[:, 3:80], lambda x: x[:, :, 5:90], lambda x: x[::2], lambda x: x[:, ::2, ::2]]
)
def test_views(view):
    x = view(torch.randn(5, 99, 101))
    assert torch.equal(steps(x), x.transpose(1, 2))
    assert steps(x).is_contiguous()


def test_what_lies_right_already_is_not_copied():
    x = torch.randn(2, 99, 101).transpose(1, 2)
    assert steps(x).data_ptr() == x.data_ptr()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_are_views(dtype):
    x = torch.randn(2, 99, 101).to(dtype)
    assert torch.equal(steps(x), x.transpose(1, 2))


def test_the_gradient_goes_back_through_it():
    x = torch.randn(2, 99, 101, requires_grad=True)
    weights = torch.randn(2, 101, 99)
    (steps(x) * weights).sum().backward()
    assert torch.equal(x.grad, weights.transpose(1, 2))


def test_threads_do_not_matter():
    x = torch.randn(3, 130, 257)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert torch.equal(_copy(x), x.transpose(1, 2))
    finally:
        torch.set_num_threads(before)
