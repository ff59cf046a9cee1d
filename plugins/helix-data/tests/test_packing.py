"""A batch taken apart and put together again is the batch, whatever it is made of."""

from __future__ import annotations

from typing import NamedTuple

import attrs
import numpy as np
import pytest
import torch

from helix_data.loading.packing import pack, places, unpack

DTYPES = [torch.int64, torch.uint8, torch.bool, torch.float32, torch.bfloat16, torch.float64, torch.complex64]


class Pair(NamedTuple):
    left: torch.Tensor
    right: object


@attrs.frozen
class Record:
    values: torch.Tensor


def sent(batch):
    """Return a batch that has gone through memory elsewhere."""
    packed = pack(batch)
    return unpack(packed.structure, [bytearray(buffer) for buffer in packed.buffers])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,), (2, 3, 4)], ids=str)
def test_a_tensor_of_any_type_and_shape_comes_back(dtype, shape):
    tensor = (torch.randn(shape, dtype=torch.float64) * 100).to(dtype)
    found = sent(tensor)
    assert found.dtype == dtype
    assert found.shape == tensor.shape
    assert torch.equal(found, tensor)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(12).reshape(3, 4).T,
        torch.arange(12)[::3],
        torch.ones(2, dtype=torch.complex64).mul(1j).conj(),
        torch.eye(3).to_sparse(),
        torch.ones(3, requires_grad=True),
        torch.nn.Parameter(torch.ones(3)),
    ],
    ids=["transposed", "strided", "conjugate", "sparse", "with gradient", "parameter"],
)
def test_a_tensor_that_is_not_plain_comes_back(tensor):
    found = sent(tensor)
    assert type(found) is type(tensor)
    assert found.requires_grad == tensor.requires_grad
    assert torch.equal(found.to_dense().resolve_conj(), tensor.to_dense().resolve_conj())


def test_structures_come_back_as_they_were():
    batch = Pair(
        torch.arange(3), {"a": [np.arange(4.0), None], "b": ("text", 1.5), "c": Record(torch.ones(2))}
    )
    found = sent(batch)
    assert type(found) is Pair
    assert found.left.tolist() == [0, 1, 2]
    assert found.right["a"][0].tolist() == [0, 1, 2, 3]
    assert found.right["a"][1] is None
    assert found.right["b"] == ("text", 1.5)
    assert found.right["c"].values.tolist() == [1, 1]


def test_what_is_contiguous_is_not_copied():
    tensor, array = torch.zeros(1000), np.zeros(1000)
    packed = pack((tensor, array))
    tensor[0], array[0] = 1, 2
    assert len(packed.structure) < 1000
    assert [np.frombuffer(packed.buffers[0], np.float32)[0], np.frombuffer(packed.buffers[1])[0]] == [1, 2]


def test_what_comes_back_can_be_written_to():
    tensor, array = sent((torch.zeros(2), np.zeros(2)))
    tensor += 1
    array += 1
    assert (tensor.tolist(), array.tolist()) == ([1, 1], [1, 1])


def test_places_are_aligned_and_do_not_overlap():
    assert places([1, 64, 0, 65]) == (
        [slice(0, 1), slice(64, 128), slice(128, 128), slice(128, 193)],
        256,
    )
    assert places([]) == ([], 0)
