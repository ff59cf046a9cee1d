from __future__ import annotations

import pytest
import torch

from helix_kernel.errors import ArgumentError
from helix_kernel.ops import defined
from helix_ssm.ops.chunked import ChunkedBackend
from helix_ssm.ops.chunked.packed import Packing

BOUNDS = (0, 2, 2, 5, 5)


def row(*shape):
    return torch.arange(1.0, 1 + torch.Size(shape).numel()).view(1, *shape)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_sequences_begin_at_the_left_and_the_rest_is_filled(dtype):
    packing = Packing.of(torch.tensor(BOUNDS, dtype=dtype), 5)
    assert (packing.n_sequences, packing.max_len) == (4, 3)
    expected = torch.tensor([[1.0, 2, 9], [9, 9, 9], [3, 4, 5], [9, 9, 9]])
    assert torch.equal(packing.pad(row(5), fill=9.0), expected)


@pytest.mark.parametrize("bounds", [(0, 5), BOUNDS, (0, 0, 1, 5), (0, 1, 2, 3, 4, 5)])
@pytest.mark.parametrize("rest", [(), (2,), (2, 3)])
def test_cutting_undoes_padding(bounds, rest):
    packing, x = Packing.of(torch.tensor(bounds), 5), row(5, *rest)
    padded = packing.pad(x)
    assert padded.shape == (len(bounds) - 1, packing.max_len, *rest)
    assert torch.equal(packing.cut(padded), x)


@pytest.mark.parametrize("bounds", [(0, 0), (0, 0, 0)])
def test_a_row_without_tokens_has_empty_sequences(bounds):
    packing = Packing.of(torch.tensor(bounds), 0)
    padded = packing.pad(torch.ones(1, 0, 3))
    assert padded.shape == (len(bounds) - 1, 0, 3)
    assert packing.cut(padded).shape == (1, 0, 3)


def test_both_ways_are_differentiable():
    packing = Packing.of(torch.tensor(BOUNDS), 5)
    x = row(5, 2).double().requires_grad_()
    batch = torch.randn(4, 3, 2, dtype=torch.complex128, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: packing.pad(x, fill=1.0), x)
    assert torch.autograd.gradcheck(packing.cut, batch)


def test_bounds_that_do_not_cover_the_row_are_refused():
    with pytest.raises(ArgumentError, match="values that rise from 0 to seq_len=5"):
        Packing.of(torch.tensor([0, 4]), 5)


@pytest.mark.parametrize("name", ["causal_conv1d", "diagonal_scan", "selective_scan"])
def test_packed_rows_need_no_reference(name):
    """An implementation may return NotImplemented, and the reference then serves, token by token."""
    packed = [sample for sample in defined()[name].contract.samples() if "packed" in sample.name]
    assert packed
    for sample in packed:
        assert ChunkedBackend.ops[name](*sample.args) is not NotImplemented
        y, final_state, *saved = defined()[name](*sample.args)
        found = ChunkedBackend.ops[f"{name}_backward"](y, final_state, *saved, *sample.args)
        assert found is not NotImplemented


@pytest.mark.parametrize("bounds", [(0, 0), (0, 0, 0)])
def test_a_packed_convolution_of_nothing_keeps_its_states(bounds):
    state = torch.randn(len(bounds) - 1, 3, 2)
    arguments = (torch.ones(1, 0, 2), torch.ones(2, 4), None, True, state, torch.tensor(bounds))
    y, final_state = ChunkedBackend.ops["causal_conv1d"](*arguments)
    assert y.shape == (1, 0, 2)
    assert torch.equal(final_state, state)
    grad_x, _, _, grad_state = ChunkedBackend.ops["causal_conv1d_backward"](None, state, *arguments)
    assert grad_x.shape == (1, 0, 2)
    assert torch.equal(grad_state, state)
