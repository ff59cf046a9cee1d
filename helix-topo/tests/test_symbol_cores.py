"""Sketches of keys are as alike as the keys."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cosine_similarity

from helix_topo.symbol_cores import sketch


@pytest.mark.parametrize("n_equal", [0, 8, 16, 24, 31, 32])
def test_the_likeness_of_sketches_is_the_share_of_equal_places(n_equal):
    draw = torch.Generator().manual_seed(n_equal)
    one = torch.randint(256, (400, 32), generator=draw, dtype=torch.uint8)
    other = one.clone()
    other[:, n_equal:] += torch.randint(1, 256, (400, 32 - n_equal), generator=draw, dtype=torch.uint8)
    found = cosine_similarity(sketch(one), sketch(other))
    assert found.mean().item() == pytest.approx(n_equal / 32, abs=0.02)
    assert found.std() < 0.08


def test_the_order_of_symbols_counts():
    ab, ba = sketch(torch.tensor([[1, 2], [2, 1]], dtype=torch.uint8))
    assert cosine_similarity(ab, ba, dim=0).abs() < 0.2


def test_a_key_has_one_sketch_whatever_is_sketched_with_it():
    keys = torch.randint(256, (9, 5), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert sketch(keys)[3:4].equal(sketch(keys[3:4]))
