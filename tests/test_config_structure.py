"""Values become the types that options declare, strictly, and every mistake keeps its path."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import attrs
import pytest
from helix_toy.config import BlockConfig, Window
from hypothesis import given
from hypothesis import strategies as st

from helix_kernel import ComponentOf
from helix_kernel.config import structure
from helix_kernel.errors import ConfigError

CONVERTER = structure.make_converter()


def convert(value, annotation):
    return CONVERTER.structure(value, annotation)


def problems_of(value, annotation, path="x"):
    with pytest.raises(Exception) as error:  # noqa: PT011 - whatever it is, problems() must read it
        convert(value, annotation)
    return [str(problem) for problem in structure.problems(error.value, path)]


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (5, int, 5),
        (5, float, 5.0),
        (5.5, float, 5.5),
        ("a", str, "a"),
        (True, bool, True),
        ("a/b", Path, Path("a/b")),
        ("fast", Literal["fast", 3], "fast"),
        (3, Literal["fast", 3], 3),
        (None, int | None, None),
        (5, int | None, 5),
        ("auto", int | str, "auto"),
        (True, bool | str, True),
        (5, int | float, 5),
        ([1, 2], list[int], [1, 2]),
        ([1, 2], list[float], [1.0, 2.0]),
        ([1, 2], tuple[int, ...], (1, 2)),
        ([1, 2], tuple[int, float], (1, 2.0)),
        ([], list[int], []),
        ([1, "a"], list, [1, "a"]),
        ([1, 2], Sequence[int], [1, 2]),
        ({"a": 1}, dict[str, float], {"a": 1.0}),
        ({"a": [1]}, Mapping[str, list[int]], {"a": [1]}),
        ({"a": 1}, dict, {"a": 1}),
        ({"size": 4}, Window, Window(size=4)),
        ([[1], [2, 3]], list[list[int]], [[1], [2, 3]]),
        ({"a": 1}, Any, {"a": 1}),
    ],
)
def test_a_value_of_the_type_is_taken(value, annotation, expected):
    found = convert(value, annotation)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "annotation", "says"),
    [
        ("5", int, "x: given '5' (text), allowed is an integer"),
        (5.0, int, "x: given 5.0 (a number), allowed is an integer"),
        (True, int, "x: given true (true or false), allowed is an integer"),
        ("5", float, "x: given '5' (text), allowed is a number"),
        (False, float, "x: given false (true or false), allowed is a number"),
        (5, str, "x: given 5 (an integer), allowed is text"),
        (1, bool, "x: given 1 (an integer), allowed is true or false"),
        ("true", bool, "x: given 'true' (text), allowed is true or false"),
        ([1], int, "x: given [1] (a list), allowed is an integer"),
        ({"a": 1}, int, "x: given a table, allowed is an integer"),
        (dt.date(2024, 1, 1), str, "x: given datetime.date(2024, 1, 1) (date), allowed is text"),
        (5, Path, "x: given 5 (an integer), allowed is a path"),
        ("fasd", Literal["fast", 3], "x: given 'fasd' (text), allowed is 'fast' or 3. Did you mean 'fast'?"),
        (True, Literal[1], "x: given true (true or false), allowed is 1."),
        ("x", int | None, "x: given 'x' (text), allowed is an integer"),
        ([1], int | str, "x: given [1] (a list), allowed is an integer or text"),
        (True, int | str, "x: given true (true or false), allowed is an integer or text"),
        ("ab", list[str], "x: given 'ab' (text), allowed is a list, each text"),
        ([1, "a"], list[int], "x[1]: given 'a' (text), allowed is an integer"),
        ([[1], ["a"]], list[list[int]], "x[1][0]: given 'a' (text), allowed is an integer"),
        ([1], tuple[int, float], "x: given 1 values, allowed is [an integer, a number]"),
        ([1, "a"], tuple[int, float], "x[1]: given 'a' (text), allowed is a number"),
        ([1], dict[str, int], "x: given [1] (a list), allowed is a table"),
        ({"a": "b"}, dict[str, int], "x.a: given 'b' (text), allowed is an integer"),
        ({"siz": 4}, Window, "x.siz: unknown option. Did you mean 'size'?"),
        ({"size": "4"}, Window, "x.size: given '4' (text), allowed is an integer"),
        ({"size": 0}, Window, "x: size is 0, allowed is >= 1"),
        ({}, BlockConfig, "x.d_model: missing; it is required"),
    ],
)
def test_any_other_value_is_refused_with_path_value_and_what_is_allowed(value, annotation, says):
    assert problems_of(value, annotation) == [says]


def test_all_mistakes_are_found_at_once():
    value = {
        "d_model": "a",
        "sizes": [1, "b", 2, "c"],
        "window": {"size": "d", "shap": 1},
        "limits": {"e": "f"},
    }
    paths = {problem.partition(":")[0] for problem in problems_of(value, BlockConfig, "model")}
    assert paths == {
        f"model.{p}" for p in ("d_model", "sizes[1]", "sizes[3]", "window.size", "window.shap", "limits.e")
    }


def test_a_key_error_of_a_class_of_ones_own_is_no_missing_option():
    @attrs.frozen
    class Odd:
        key: str

        def __attrs_post_init__(self):
            raise KeyError("table")

    (problem,) = problems_of({"key": "a"}, Odd)
    assert "missing" not in problem


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (Any, "any value"),
        (Annotated[int, "seconds"], "an integer"),
        (Annotated[Any, ComponentOf("layer")], "a table with a layer in `use`"),
        (Annotated[Any, ComponentOf("layer")] | None, "a table with a layer in `use`"),
        (list, "a list"),
        (Window, "a table"),
        (dt.date, "date"),
    ],
)
def test_types_are_described_in_words(annotation, words):
    assert structure.describe(annotation) == words


@pytest.mark.parametrize(
    ("path", "name", "expected"), [("", "a", "a"), ("a", "", "a"), ("a", "b", "a.b"), ("a", "[0]", "a[0]")]
)
def test_paths_are_joined(path, name, expected):
    assert structure.under(path, name) == expected


toml = st.recursive(
    st.integers() | st.floats(allow_nan=False) | st.booleans() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(toml, st.sampled_from([int, float, str, bool, list[int], dict[str, float], tuple[int, str], Window]))
def test_whatever_is_given_is_converted_or_refused_with_a_reason(value, annotation):
    try:
        convert(value, annotation)
    except Exception as error:  # noqa: BLE001 - the property is about every error
        found = structure.problems(error, "x")
        assert found
        assert all(problem.path.startswith("x") and problem.message for problem in found)


def test_a_config_error_within_keeps_its_own_paths():
    inner = ConfigError(structure.problems(ConfigError([]), "a") or [])
    assert structure.problems(inner, "x") == []
