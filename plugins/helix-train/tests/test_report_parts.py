"""What a report is made of: numbers for people, axes, smoothed and thinned curves, the cost of loss."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix_train.report.cost import Cost
from helix_train.report.html import element, table
from helix_train.report.numbers import amount, count, duration, percent, short, significant
from helix_train.report.scale import Scale, round_up
from helix_train.report.series import Series


def series(values, *, first=1):
    values = np.asarray(values, dtype=np.float64)
    return Series(np.arange(first, first + len(values), dtype=np.float64), values)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (significant(1.88449), "1.884"),
        (significant(0.0003), "0.0003"),
        (significant(0.00000312), "3.12e-6"),
        (significant(1806.4), "1,806"),
        (significant(24273.2), "24,273"),
        (significant(-1.5e9), "-1.5e9"),
        (significant(0.0), "0"),
        (amount(982_800, "tok"), "983 ktok"),
        (amount(999.7, "FLOP"), "1 kFLOP"),
        (amount(3.456e15, "FLOP"), "3.46 PFLOP"),
        (amount(12), "12"),
        (amount(2e30, "FLOP"), "2e+09 ZFLOP"),
        (short(20_000), "20k"),
        (short(0.00002), "2e-5"),
        (percent(0.0213), "2.13 %"),
        (count(1234567.0), "1,234,567"),
        (duration(0.7461), "0.746 s"),
        (duration(59.96), "60 s"),
        (duration(185.3), "3 min 05 s"),
        (duration(7_380), "2 h 03 min"),
        (duration(100_000), "1 d 03 h"),
    ],
)
def test_numbers_are_written_for_people(text, expected):
    assert text == expected


def test_text_is_escaped_and_markup_is_not():
    inner = element("b", {"title": '"<'}, "a<b")
    assert element("p", None, inner, "&") == '<p><b title="&quot;&lt;">a&lt;b</b>&amp;</p>'


def test_columns_of_numbers_are_marked_as_such():
    html = table(("a", "b"), [("x", "1")], numbers=1)
    assert '<th class="number" scope="col">b</th>' in html
    assert '<th scope="row">x</th><td class="number">1</td>' in html


class TestScale:
    @pytest.mark.parametrize(
        ("scale", "expected"),
        [
            (Scale(0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
            (Scale(0.5, 240.5), [50, 100, 150, 200]),
            (Scale(-3, 3), [-3, -2, -1, 0, 1, 2, 3]),
            (Scale(1e-5, 1e-1, is_log=True), [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]),
            (Scale(1.4, 8.2, is_log=True), [1.5, 2, 3, 4, 6, 8]),
        ],
        ids=["unit", "steps", "signed", "decades", "ratios"],
    )
    def test_ticks_are_round(self, scale, expected):
        assert scale.ticks() == pytest.approx(expected)

    @given(
        st.floats(-1e30, 1e30, allow_subnormal=False),
        st.floats(0, 1e30, allow_subnormal=False),
        st.booleans(),
        st.booleans(),
    )
    def test_all_values_lie_on_the_axis_and_ticks_are_few(self, low, spread, is_log, from_zero):
        high = low + spread
        scale = Scale.around(low, high, is_log=is_log, from_zero=from_zero)
        assert scale.low < scale.high
        assert 0 <= scale.at(low) <= scale.at(high) <= 1
        ticks = scale.ticks()
        assert len(ticks) <= 8
        assert ticks == sorted(ticks)

    def test_a_log_axis_has_equal_ratios_at_equal_distances(self):
        scale = Scale(1, 100, is_log=True)
        assert scale.at(10) == pytest.approx(0.5)

    @given(st.floats(1e-30, 1e30))
    def test_a_value_is_rounded_up_to_less_than_three_times_as_much(self, value):
        assert value * (1 - 1e-6) <= round_up(value) <= 2.6 * value


class TestSeries:
    def test_it_takes_finite_numbers_in_the_order_of_steps(self):
        records = [
            {"step": 3, "x": 1.0},
            {"step": 1, "x": 2},
            {"step": 2, "x": math.nan},
            {"step": 4, "x": "1"},
            {"step": 5, "x": True},
            {"step": 6, "y": 1.0},
        ]
        found = Series.of(records, "x")
        assert (found.steps.tolist(), found.values.tolist(), found.n_left_out) == ([1, 3], [2, 1], 1)

    def test_whole_numbers_that_no_float_holds_are_left_out(self):
        records = [{"step": 1, "x": 10**400}, {"step": 10**400, "x": 1}, {"step": 2, "x": 5}]
        found = Series.of(records, "x")
        assert (found.steps.tolist(), found.values.tolist(), found.n_left_out) == ([2], [5], 2)

    @given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400))
    def test_smoothing_is_a_mean_over_as_many_points_on_both_sides(self, values):
        half = len(values) // 60
        smoothed = series(values).smoothed().values
        for at in range(len(values)):
            reach = min(half, at, len(values) - 1 - at)
            assert smoothed[at] == pytest.approx(np.mean(values[at - reach : at + reach + 1]), abs=1e-3)

    @given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400), st.integers(1, 40))
    def test_thinning_keeps_the_ends_and_every_extreme(self, values, buckets):
        thin = series(values).thinned(buckets)
        assert len(thin) <= 2 * buckets + 2
        assert thin.steps.tolist() == sorted(set(thin.steps.tolist()))
        assert (thin.values[0], thin.values[-1]) == (values[0], values[-1])
        assert (thin.values.min(), thin.values.max()) == (min(values), max(values))
        assert all(
            values[int(step) - 1] == value for step, value in zip(thin.steps, thin.values, strict=True)
        )


class TestCost:
    def cost(self, losses, **more):
        known = {"flops_per_step": 10.0, "tokens_per_step": 5} | more
        return Cost(series(losses), series(np.full(len(losses), 2.0)), **known)

    def test_a_level_costs_what_was_spent_until_it_was_first_reached(self):
        levels = self.cost([3.0, 2.0, 2.4, 1.0]).levels()
        assert [level.loss for level in levels] == [2.5, 2.0, 1.5, 1.0]
        assert [level.spent.step for level in levels] == [2, 2, 4, 4]
        last = levels[-1].spent
        assert (last.seconds, last.flops, last.tokens) == (8.0, 40.0, 20)

    def test_the_last_gain_runs_to_the_end_of_the_run(self):
        last = self.cost([2.0, 1.05, 1.0, 1.0, 1.0]).last()
        assert (last.step, last.seconds, last.flops) == (3, 6.0, 30.0)

    def test_the_average_is_over_the_whole_gain(self):
        average = self.cost([2.0, 1.5, 1.0]).average()
        assert (average.seconds, average.flops) == (pytest.approx(0.6), pytest.approx(3.0))

    @pytest.mark.parametrize("losses", [[], [1.0], [1.0, 1.05], [1.0, 0.95]], ids=len)
    def test_too_small_a_gain_has_no_price(self, losses):
        cost = self.cost(losses)
        assert cost.last() is None
        assert cost.average() is None

    def test_what_nobody_measured_is_unknown(self):
        cost = Cost(series([2.0, 1.0]), series([]), None, None)
        spent = cost.last()
        assert (spent.seconds, spent.flops, spent.tokens) == (None, None, None)

    def test_time_before_the_first_line_of_times_is_none(self):
        cost = Cost(series([2.0, 1.0, 0.5]), series([4.0], first=3), None, None)
        assert cost.levels()[0].spent.seconds == 0.0
        assert cost.levels()[-1].spent.seconds == 4.0
