"""How contests are timed and read: with contestants that take as long as they say, on their own clock."""

from __future__ import annotations

import math
import os

import pytest
import torch

from helix_cpu import library
from helix_cpu.bench import session
from helix_cpu.bench.contest import (
    OURS,
    AbsentError,
    Contest,
    Entry,
    Goal,
    Line,
    distance,
    hold,
    times_faster,
    times_slower,
)


class Clock:
    """A clock that runs only while a contestant does."""

    def __init__(self):
        self.now = 0.0
        self.runs = []

    def __call__(self):
        return self.now

    def contestant(self, name, *durations, result=1.0, compared=True):
        """One whose runs take so long, the last duration for all that follow."""
        left = list(durations)

        def run():
            self.runs.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]
            return torch.tensor([result])

        return lambda: Entry(run, (lambda found: found) if compared else None)


def contest(contestants, *lines, **rest):
    return Contest("op", "forward", "(1, 2)", lambda: contestants, lines, **rest)


@pytest.mark.parametrize(("faster", "met"), [(20, True), (30, False)])
def test_a_goal_is_met_or_not(faster, met):
    clock = Clock()
    contestants = {OURS: clock.contestant(OURS, 0.01), "peer": clock.contestant("peer", 0.25)}
    (row,) = hold(contest(contestants, times_faster("peer", faster)), 3, clock)
    assert row.value == pytest.approx(25)
    assert row.met is met
    assert (row.ours_s, row.theirs_s) == pytest.approx((0.01, 0.25))


def test_the_median_of_the_rounds_counts_and_not_the_first_runs():
    clock = Clock()
    # a first run, one to find how often to repeat, and three rounds
    contestants = {
        OURS: clock.contestant(OURS, 1.5, 0.1, 0.1, 0.3, 0.2),
        "peer": clock.contestant("peer", 1.5, 0.4, 0.4, 0.4, 0.9),
    }
    (row,) = hold(contest(contestants, times_faster("peer")), 3, clock)
    assert row.value == pytest.approx(0.4 / 0.2)


def test_contestants_take_turns():
    clock = Clock()
    contestants = {OURS: clock.contestant(OURS, 0.1), "peer": clock.contestant("peer", 0.1)}
    hold(contest(contestants, times_faster("peer")), 3, clock)
    assert clock.runs == [OURS, "peer"] * 5


def test_a_short_run_is_repeated_and_a_long_one_runs_once():
    clock = Clock()
    contestants = {OURS: clock.contestant(OURS, 0.00125), "peer": clock.contestant("peer", 60.0)}
    (row,) = hold(contest(contestants, times_faster("peer")), 3, clock)
    assert clock.runs.count("peer") == 1
    assert clock.runs.count(OURS) == 2 + 3 * 3
    assert row.value == pytest.approx(48_000)


def test_one_of_middling_length_runs_in_fewer_rounds():
    clock = Clock()
    contestants = {OURS: clock.contestant(OURS, 0.1), "peer": clock.contestant("peer", 0.9)}
    hold(contest(contestants, times_faster("peer")), 7, clock)
    assert clock.runs.count("peer") == 2 + 2
    assert clock.runs.count(OURS) == 2 + 7


def test_an_upper_limit_holds_ours_against_the_peer():
    clock = Clock()
    contestants = {OURS: clock.contestant(OURS, 0.3), "copy": clock.contestant("copy", 0.2, compared=False)}
    (row,) = hold(contest(contestants, times_slower("copy", 1.4)), 3, clock)
    assert row.value == pytest.approx(1.5)
    assert row.met is False


def test_an_absent_peer_says_how_to_get_it():
    def absent():
        raise AbsentError("absent: pip install peer")

    clock = Clock()
    (row,) = hold(
        contest({OURS: clock.contestant(OURS, 0.1), "peer": absent}, times_faster("peer", 4)), 3, clock
    )
    assert (row.value, row.met, row.note) == (None, None, "absent: pip install peer")


def test_a_peer_with_another_result_has_no_time():
    clock = Clock()
    contestants = {OURS: clock.contestant(OURS, 0.1), "peer": clock.contestant("peer", 0.4, result=1.01)}
    (row,) = hold(contest(contestants, times_faster("peer")), 3, clock)
    assert row.value is None
    assert "its result is 1.0e-02 of the largest element away" in row.note
    assert clock.runs.count("peer") == 1


@pytest.mark.parametrize(
    ("found", "far"), [([1.0, 2.0], 0.0), ([1.0, 1.0], 0.5), ([1.0, math.nan], math.inf)]
)
def test_distance_is_of_the_largest_element(found, far):
    assert distance(torch.tensor(found), torch.tensor([1.0, 2.0])) == far


def test_a_figure_may_be_read_off_anything():
    def unknown(_times):
        raise AbsentError("only Linux tells the peak")

    clock = Clock()
    line = Line("memory", unknown, (), " activations", Goal(6, at_least=False))
    (row,) = hold(contest({OURS: clock.contestant(OURS, 0.1)}, line), 1, clock)
    assert (row.value, row.note) == (None, "only Linux tells the peak")


def test_a_session_keeps_to_its_threads_and_cores_and_gives_them_back():
    before = torch.get_num_threads(), os.sched_getaffinity(0)
    seen = []

    def look():
        seen.append((torch.get_num_threads(), len(os.sched_getaffinity(0))))

    pinned = contest({OURS: lambda: Entry(look)})
    free = contest({OURS: lambda: Entry(look)}, pinned=False)
    session.run([pinned, free], threads=1, rounds=1, show=lambda _: None)
    assert seen[0] == (1, len(before[1]))
    assert seen[-1] == (1, 1)
    assert (torch.get_num_threads(), os.sched_getaffinity(0)) == before


def test_a_contest_may_ask_for_an_instruction_set():
    before, seen = library.library(), []
    plainest = library.supported()[-1]
    entry = Entry(lambda: seen.append(library.library().isa))
    session.run([contest({OURS: lambda: entry}, isa=plainest)], threads=1, rounds=1, show=lambda _: None)
    assert set(seen) == {plainest}
    assert library.library() is before


def test_one_that_the_processor_lacks_is_said(monkeypatch):
    monkeypatch.setattr(library, "supported", lambda: ("baseline",))
    rows = []
    session.run([contest({}, times_faster("peer", 50), isa="avx2")], threads=1, rounds=1, show=rows.extend)
    assert rows[0].note == "this processor has no avx2"
