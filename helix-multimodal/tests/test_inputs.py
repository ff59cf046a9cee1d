"""Samples of many sizes as one tensor."""

import pytest
import torch

from helix_kernel.errors import ArgumentError
from helix_multimodal.inputs import Padded, Tokens, join, pad, pool


def test_samples_keep_their_values_and_sizes():
    first, second = torch.arange(6).view(2, 3), torch.ones(3, 1, dtype=torch.int64)
    padded = pad([first, None, second])
    assert padded.values.shape == (3, 3, 3)
    assert padded.sizes.tolist() == [[2, 3], [0, 0], [3, 1]]
    assert padded.values[0, :2, :3].equal(first)
    assert padded.values[2, :3, :1].equal(second)
    assert int(padded.values.sum()) == int(first.sum()) + 3


def test_a_missing_sample_is_not_an_empty_picture():
    padded = pad([torch.zeros(2, 2), None])
    assert padded.present.tolist() == [True, False]
    assert padded.within(1).tolist() == [[True, True], [False, False]]


def test_all_may_be_missing_where_something_tells_the_dtype():
    padded = pad([None, None], like=torch.zeros(0, 0, dtype=torch.uint8))
    assert padded.values.dtype == torch.uint8
    assert not padded.present.any()


@pytest.mark.parametrize(
    ("samples", "match"),
    [
        ([None], "nothing tells the dtype"),
        ([torch.zeros(2), torch.zeros(2, dtype=torch.int64)], "allowed is one dtype"),
        ([torch.zeros(2), torch.zeros(2, 2)], "one number of axes"),
    ],
)
def test_what_cannot_be_one_tensor_is_refused(samples, match):
    with pytest.raises(ArgumentError, match=match):
        pad(samples)


def test_pooling_reads_what_is_visible():
    values = torch.tensor([[[1.0], [3.0], [100.0]], [[5.0], [5.0], [5.0]]])
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert pool(Tokens(values, mask)).tolist() == [[2.0], [0.0]]


def test_parts_are_joined_row_by_row():
    ones = Tokens(torch.ones(2, 1, 3), torch.tensor([[True], [False]]))
    zeros = Tokens(torch.zeros(2, 2, 3), torch.ones(2, 2, dtype=torch.bool))
    both = join([ones, zeros])
    assert both.mask.tolist() == [[True, True, True], [False, True, True]]
    assert both.values[:, :1].equal(ones.values)


def test_a_batch_goes_to_a_device():
    assert isinstance(pad([torch.zeros(1)]).to("cpu"), Padded)
