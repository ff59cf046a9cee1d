"""Tests of ledger.py."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from helix_kernel.errors import ArgumentError, InputError
from helix_kernel.testing.plain_state import same, through_a_file
from helix_topo.ledger import Ledger
from helix_topo.stability import ClosedForm, Rule, retrievability, strengthened


def test_an_entry_begins_with_the_initial_stability_and_fades():
    ledger = Ledger(3, Rule(initial=2.0))
    ledger.added([0, 2], 10.0)
    assert ledger.retrievability(10.0).tolist() == [1.0, 0.0, 1.0]
    assert ledger.retrievability(12.0) == pytest.approx([0.9, 0.0, 0.9])


def test_a_recall_strengthens_and_a_wrong_one_weakens():
    rule = Rule(growth=3.0)
    ledger = Ledger(2, rule)
    ledger.added([0, 1], 0.0)
    ledger.recalled([0], 5.0)
    ledger.recalled([1], 5.0, correct=False)
    recalled = retrievability(np.array([5.0]), np.ones(1))
    expected = strengthened(np.ones(1), recalled, rule)[0]
    assert ledger.stability.tolist() == pytest.approx([expected, 0.4])
    assert ledger.retrievability(5.0).tolist() == [1.0, 1.0]
    assert ledger.recalls.tolist() == [1, 0]


def test_recalls_in_one_batch_are_as_one_after_another():
    slots = np.random.default_rng(0).integers(0, 5, 40)
    saved, before = np.linspace(-1, 3, 40), np.arange(40) % 7
    rule = Rule(w_evidence=0.5, w_context=1.0, w_phase=1.0)
    at_once, apart = (Ledger(5, rule) for _ in range(2))
    for ledger in (at_once, apart):
        ledger.added(range(5), 0.0)
        ledger.recalled(range(5), 1.0)
    at_once.recalled(slots, 3.0, saved_bits=saved, before=before)
    for row in range(40):
        one = slice(row, row + 1)
        apart.recalled(slots[one], 3.0, saved_bits=saved[one], before=before[one])
    assert same(at_once.state(), apart.state())
    assert (at_once.stability > 1).all()


@pytest.mark.parametrize("weight", ["w_evidence", "w_context", "w_phase"])
def test_each_weight_counts_what_it_weighs(weight):
    plain, weighed = Ledger(1), Ledger(1, Rule(**{weight: 1.0}))
    for ledger in (plain, weighed):
        ledger.added([0], 0.0)
        for time in (4.0, 8.0, 12.0):
            ledger.recalled([0], time, saved_bits=[2.0], before=[7])
    assert weighed.stability[0] > 1.2 * plain.stability[0]


def test_what_lasts_is_promoted_and_what_fails_demoted():
    ledger = Ledger(1, Rule(initial=2.0))
    ledger.added([0], 0.0)
    assert ledger.links.of(0) == "U"
    for time in (20.0, 300.0):
        ledger.recalled([0], time)
    assert ledger.links.of(0) == "S"
    for _ in range(5):
        ledger.recalled([0], 300.0, correct=False)
    assert ledger.links.of(0) == "U"
    assert (ledger.links.n_promoted, ledger.links.n_demoted) == (2, 2)


def test_of_what_was_forgotten_nothing_is_left():
    ledger, other = Ledger(2), Ledger(2)
    for each in (ledger, other):
        each.added([0], 0.0)
        each.recalled([0], 1.0)
    ledger.added([1], 1.0)
    ledger.recalled([1], 1.0, saved_bits=[1.0], before=[3])
    ledger.forgotten([1])
    assert same(ledger.state(), other.state())
    ledger.recalled([1], 1.0)
    assert same(ledger.state(), other.state())


def test_by_the_closed_form_an_entry_stands_by_what_speaks_for_it_now():
    ledger = Ledger(4, ClosedForm(initial=2.0, decay=0.1))
    ledger.added([0, 1, 3], 0.0)
    for time in (1.0, 2.0, 3.0):
        ledger.recalled([1], time, saved_bits=[0.5], before=[int(time)])
    of = ledger.evidence
    recalled = [(1 + 19 / 81 * elapsed / 2) ** -0.5 for elapsed in (5.0, 2.0)]
    context, evidence, phase = (float(each([1])[0]) for each in (of.context, of.evidence, of.phase))
    wanted = [math.log(1 + recalled[0]) - 0.5, math.log(1 + recalled[1] + context) + evidence + phase - 0.2]
    assert (evidence, phase) == (0.5, 1.0)
    assert context > 0.7
    assert ledger.standing(5.0).tolist() == pytest.approx([*wanted, -math.inf, wanted[0]])
    assert ledger.stability.tolist() == [2, 2, 0, 2], "something was kept from recall to recall"


def test_by_the_closed_form_classes_begin_at_0_3_and_0_7():
    ledger = Ledger(2, ClosedForm(decay=0.1))
    ledger.added([0, 1], 0.0)
    assert ledger.links.of(0) == "I"  # ln 2
    ledger.recalled([1], 1.0, saved_bits=[0.1])
    assert ledger.links.of(1) == "S"
    ledger.classed(4.5)
    assert (ledger.links.of(0), ledger.links.of(1)) == ("U", "I")


def test_by_the_closed_form_what_proved_wrong_is_no_recall():
    ledger = Ledger(2, ClosedForm())
    ledger.added([0, 1], 0.0)
    ledger.recalled([0], 5.0)
    ledger.recalled([1], 5.0, correct=False)
    assert ledger.standing(5.0)[0] > ledger.standing(5.0)[1]
    assert ledger.recalls.tolist() == [1, 0]


def test_a_state_restores_a_ledger_to_the_bit():
    ledger, other = Ledger(4), Ledger(4)
    ledger.added(range(4), 3.0)
    ledger.recalled([1, 1, 2], 50.0, saved_bits=[1, 2, 3], before=[5, 6, 7])
    other.load_state(through_a_file(ledger.state()))
    for each in (ledger, other):
        each.recalled([3, 1], 60.0)
    assert same(ledger.state(), other.state())
    with pytest.raises(ArgumentError, match="time is 59"):
        other.added([0], 59.0)


def test_a_model_that_is_cast_leaves_the_ledger_as_it_is():
    ledger = torch.nn.ModuleList([Ledger(2)]).to(torch.bfloat16)[0]
    assert ledger.stability.dtype == torch.float64


def test_what_does_not_fit_is_refused():
    ledger = Ledger(2)
    with pytest.raises(ArgumentError, match="slot 2 is given, allowed are 0 to 1"):
        ledger.added([0, 2], 0.0)
    with pytest.raises(ArgumentError, match="slot -1 is given"):
        ledger.recalled([-1], 0.0)
    with pytest.raises(ArgumentError, match="capacity is 0"):
        Ledger(0)
    with pytest.raises(InputError, match=r"has shape \(2,\), allowed is \(3,\)"):
        Ledger(3).load_state(ledger.state())
