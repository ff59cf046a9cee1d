"""Tests of stability.py."""

from __future__ import annotations

import math

import numpy as np
import pytest

from helix_kernel.errors import ArgumentError
from helix_topo.stability import ClosedForm, Rule, older_stability, retrievability, strengthened, weakened


def test_after_its_stability_an_entry_is_recalled_nine_times_of_ten():
    """The values are those that open-spaced-repetition gives for FSRS-4.5 (after 7 and 30 days of S = 1)."""
    elapsed = np.array([0.0, 1.0, 7.0, 30.0])
    found = retrievability(elapsed, np.ones(4))
    assert found == pytest.approx([1.0, 0.9, 0.615, 0.353], abs=5e-4)
    assert retrievability(elapsed * 1e6, np.full(4, 1e6)) == pytest.approx(found)


def test_a_recall_strengthens_by_the_formula():
    stability, recalled = np.array([1.0, 2.0, 8.0]), np.array([1.0, 0.9, 0.5])
    found = strengthened(
        stability,
        recalled,
        Rule(growth=3.0, w_evidence=0.5, w_context=0.25, w_phase=2.0),
        evidence=np.array([1.0, -4.0, 2.0]),
        context=0.5,
        phase=np.array([0.0, 1.0, 0.1]),
    )
    expected = [
        1.0,
        2 * (1 + 3 * (math.exp(0.1) - 1) * 1.125 * 3),
        8 * (1 + 3 * (math.exp(0.5) - 1) * 2 * 1.125 * 1.2),
    ]
    assert found == pytest.approx(expected)


def test_the_less_likely_a_recall_the_more_it_strengthens():
    recalled = np.linspace(1, 0.05, 50)
    found = strengthened(np.ones(50), recalled, Rule())
    assert found[0] == 1
    assert (np.diff(found) > 0).all()


def test_a_lapse_weakens():
    assert weakened(np.array([1.0, 5.0]), Rule()).tolist() == [0.4, 2.0]


def test_the_older_closed_form():
    half = np.array([0.5])
    found = older_stability(half, context=half, evidence=half / 5, phase=half, decay=half / 2)
    assert found == pytest.approx([math.log(2) + 0.1 + 0.5 - 0.25])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"initial": 0.0}, r"initial is 0\.0"),
        ({"lapse": 1.5}, r"lapse is 1\.5"),
        ({"growth": -1.0}, r"growth is -1\.0"),
        ({"w_phase": math.nan}, "w_phase is nan"),
    ],
)
def test_weights_out_of_range_are_refused(options, says):
    with pytest.raises(ArgumentError, match=says):
        Rule(**options)


@pytest.mark.parametrize(("options", "says"), [({"initial": 0.0}, "initial"), ({"decay": -0.1}, "decay")])
def test_numbers_of_the_closed_form_out_of_range_are_refused(options, says):
    with pytest.raises(ArgumentError, match=f"{says} is"):
        ClosedForm(**options)
