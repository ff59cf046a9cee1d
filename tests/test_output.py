"""What the command line prints for people."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix_kernel.cli.output import told_apart


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ((2.914324578912, 2.8), ["2.91432", "2.8"]),
        ((1 / 3, 1 / 3 + 1e-9), ["0.333333333", "0.333333334"]),
        ((0.1 + 0.2, 0.3), ["0.30000000000000004", "0.3"]),
        ((1.0, 1), ["1.0", 1]),
        ((1e-4, math.nan, True, None, "0.5"), ["0.0001", "nan", True, None, "0.5"]),
        ((1 / 3, 1 / 3), ["0.333333", "0.333333"]),
    ],
    ids=["rounded", "apart", "neighbours", "whole", "others", "same"],
)
def test_numbers_have_the_digits_that_tell_them_apart(values, told):
    assert told_apart(*values) == told


@given(st.lists(st.floats(), min_size=2, max_size=4))
def test_numbers_that_differ_never_look_the_same(values):
    told = told_apart(*values)
    assert len(set(told)) == len({str(value) for value in values})
    assert all(
        float(text) == pytest.approx(value, rel=1e-5, nan_ok=True)
        for text, value in zip(told, values, strict=True)
    )
