"""Tests of evidence.py."""

from __future__ import annotations

import numpy as np
import pytest

from helix_topo.evidence import Evidence


def test_evidence_of_use_is_the_mean_of_the_bits_saved():
    found = Evidence(4)
    found.add_saved(np.array([0, 2, 0]), np.array([1.0, -3.0, 4.0]))
    assert found.evidence(np.arange(4)).tolist() == [2.5, 0.0, -3.0, 0.0]


@pytest.mark.parametrize("n_before", [0, 1, 4, 16, 48])
def test_context_tells_how_many_different_things_came_before(n_before):
    """By what linear counting in 64 bits can tell of so many: within three standard errors."""
    slots = np.arange(200)
    evidence = Evidence(200)
    for number in np.random.default_rng(0).integers(0, 1 << 62, (n_before, 200)):
        evidence.add_before(slots, number)
        evidence.add_before(slots, number)
    load = n_before / 64
    error = 64 * np.sqrt(max(np.exp(load) - load - 1, 0) / 64 / 64)
    branching = 1 / (1 - evidence.context(slots)) - 1
    assert branching.mean() == pytest.approx(n_before, abs=3 * error / np.sqrt(200) + 0.02 * n_before)


def test_recalls_at_equal_times_are_in_phase_and_such_of_all_lengths_are_not():
    evidence, slots = Evidence(4), np.arange(3)
    for elapsed in np.exp(np.random.default_rng(0).uniform(0, 12, 400)):
        evidence.add_gap(slots, np.array([3.0, elapsed, 5.0 * 2 ** (int(elapsed) % 7)]))
    evidence.add_gap(np.array([3]), np.array([7.0]))
    phase = evidence.phase(np.arange(4))
    assert phase[[0, 2]] == pytest.approx([1, 1])
    assert phase[1] < 0.15
    assert phase[3] == 0, "one time alone is in phase with nothing"


def test_recalls_at_one_moment_have_no_phase():
    evidence = Evidence(1)
    for _ in range(3):
        evidence.add_gap(np.array([0]), np.array([0.0]))
    assert evidence.phase(np.array([0])).tolist() == [0.0]


def test_of_what_was_forgotten_nothing_is_known():
    evidence, slots = Evidence(2), np.arange(2)
    evidence.add_saved(slots, np.ones(2))
    evidence.add_before(slots, slots)
    for _ in range(2):
        evidence.add_gap(slots, np.ones(2))
    evidence.forget(np.array([1]))
    for known in (evidence.evidence, evidence.context, evidence.phase):
        first, second = known(slots)
        assert first > 0
        assert second == 0
