"""Tests of links.py."""

from __future__ import annotations

import numpy as np
import pytest

from helix_kernel.errors import ArgumentError
from helix_topo.links import Change, Links


def test_links_are_classed_by_their_stability():
    links = Links(5, thresholds=(2.0, 8.0))
    links.update(np.arange(4), np.array([1.9, 2.0, 7.9, 8.0]), 0.0)
    assert [links.of(slot) for slot in range(5)] == ["U", "I", "I", "S", None]
    assert links.count() == {"U": 1, "I": 2, "S": 1}


def test_promotions_and_demotions_are_logged_and_what_begins_or_ends_is_neither():
    links = Links(3, thresholds=(2.0, 8.0))
    links.update(np.arange(3), np.array([1.0, 9.0, 1.0]), 0.0)
    links.update(np.arange(3), np.array([3.0, 1.0, 1.5]), 4.0)
    links.forget(np.array([0]))
    links.update(np.array([0]), np.array([9.0]), 5.0)
    assert links.changes() == [Change(0, 4.0, "U", "I"), Change(1, 4.0, "S", "U")]
    assert (links.n_promoted, links.n_demoted) == (1, 1)


@pytest.mark.parametrize("batch", [1, 3, 10])
def test_the_log_keeps_the_last_changes(batch):
    links = Links(10, thresholds=(2.0, 8.0), n_logged=4)
    links.update(np.arange(10), np.full(10, 1.0), 0.0)
    for start in range(0, 10, batch):
        slots = np.arange(start, min(10, start + batch))
        links.update(slots, np.full(len(slots), 3.0), float(start))
    assert [change.slot for change in links.changes()] == [6, 7, 8, 9]
    assert links.n_promoted == 10


def test_what_cannot_be_classed_by_is_refused():
    with pytest.raises(ArgumentError, match=r"thresholds are \(3\.0, 3\.0\)"):
        Links(1, thresholds=(3.0, 3.0))
    with pytest.raises(ArgumentError, match="n_logged is 0"):
        Links(1, thresholds=(1.0, 3.0), n_logged=0)
