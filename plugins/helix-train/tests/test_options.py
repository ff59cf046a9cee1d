"""Options of configs by path, and what several configs differ in."""

from __future__ import annotations

import pytest

from helix_kernel.checkpoint.difference import ABSENT
from helix_train.options import differing, options, short_names, shown


def test_options_have_dotted_paths_and_versions_are_none():
    config = {"kernel": {"components": {"layer/a:b": "1"}}, "model": {"use": "a:b", "parts": [{"x": 1}, 2]}}
    assert options(config) == {"model.use": "a:b", "model.parts.0.x": 1, "model.parts.1": 2}


def test_what_is_absent_somewhere_differs():
    tables = [{"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 3}]
    assert differing(tables) == {"b": (2, 3), "c": (3, ABSENT)}
    assert differing(tables, but=["b"]) == {"c": (3, ABSENT)}


@pytest.mark.parametrize(("one", "other", "differ"), [(float("nan"), float("nan"), False), (1, True, True)])
def test_values_are_the_same_that_look_the_same(one, other, differ):
    assert bool(differing([{"a": one}, {"a": other}])) is differ


def test_names_are_as_short_as_they_can_be_told_apart():
    paths = ["model.mixer.d_state", "model.d_model", "data.size", "loss.size", "size"]
    assert list(short_names(paths).values()) == ["d_state", "d_model", "data.size", "loss.size", "size"]


@pytest.mark.parametrize(("value", "text"), [(ABSENT, "-"), (True, "true"), (0.1, "0.1"), ("x", "x")])
def test_values_are_shown_as_toml_has_them(value, text):
    assert shown(value) == text
