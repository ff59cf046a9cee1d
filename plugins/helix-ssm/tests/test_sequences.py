from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from helix_ssm.layers.sequences import Sequences

BOUNDS = [
    [0, 5],
    [0, 2, 5],
    [0, 0, 3, 3, 3, 5, 5],
    [0, 0],
]


@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("shape", [(), (2, 3)])
def test_packed_sequences_are_treated_as_if_each_came_alone(bounds, shape):
    values = torch.randn(1, bounds[-1], *shape, dtype=torch.float64)
    before = torch.randn(len(bounds) - 1, *shape, dtype=torch.float64)
    alone, packed = Sequences(None), Sequences(torch.tensor(bounds, dtype=torch.int32))
    sums, following = packed.running_sums(values, before), packed.next(values)
    for row, (start, end) in enumerate(pairwise(bounds)):
        own, state = values[:, start:end], before[row : row + 1]
        assert packed.first(values)[row : row + 1].equal(alone.first(own))
        assert packed.last(values, before)[row : row + 1].equal(alone.last(own, state))
        assert following[:, start:end].equal(alone.next(own))
        torch.testing.assert_close(sums[:, start:end], alone.running_sums(own, state))


def test_rows_of_a_batch():
    values, before, rows = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([8.0]), Sequences(None)
    assert rows.first(values).tolist() == [1]
    assert rows.last(values, before).tolist() == [4]
    assert rows.next(values).tolist() == [[2, 4, 0]]
    assert rows.running_sums(values, before).tolist() == [[9, 11, 15]]


def test_rows_without_tokens():
    values, before, rows = torch.ones(2, 0), torch.tensor([3.0, 5.0]), Sequences(None)
    assert rows.first(values).tolist() == [0, 0]
    assert rows.last(values, before).tolist() == [3, 5]
    assert rows.next(values).shape == rows.running_sums(values, before).shape == (2, 0)
