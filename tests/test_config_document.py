"""Reading a config into one table: bases, overrides, references."""

from __future__ import annotations

import math

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from helix_kernel.config.document import _apply, merge, read_document, resolve_references
from helix_kernel.errors import ConfigError, InputError


class TestExtends:
    def test_a_file_lies_over_its_base_key_by_key(self, write):
        write("[a]\nx = 1\ny = 1\n[b]\nz = 1", "base.toml")
        top = write('extends = "base.toml"\n[a]\ny = 2')
        assert read_document(top) == {"a": {"x": 1, "y": 2}, "b": {"z": 1}}

    def test_a_chain_is_followed_from_each_files_own_folder(self, write):
        write("[a]\nx = 1\ny = 1\nz = 1", "deep/base.toml")
        write('extends = "base.toml"\n[a]\ny = 2', "deep/middle.toml")
        top = write('extends = "deep/middle.toml"\n[a]\nz = 3')
        assert read_document(top) == {"a": {"x": 1, "y": 2, "z": 3}}

    def test_of_several_bases_the_last_wins(self, write):
        write("[a]\nx = 1\ny = 1", "one.toml")
        write("[a]\ny = 2", "two.toml")
        assert read_document(write('extends = ["one.toml", "two.toml"]')) == {"a": {"x": 1, "y": 2}}

    def test_one_base_may_be_reached_twice(self, write):
        write("[a]\nx = 1", "root.toml")
        write('extends = "root.toml"', "one.toml")
        write('extends = "root.toml"', "two.toml")
        assert read_document(write('extends = ["one.toml", "two.toml"]')) == {"a": {"x": 1}}

    def test_a_table_that_changes_its_use_starts_anew(self, write):
        write('[model]\nuse = "mamba"\nd_state = 4\n[model.norm]\nuse = "rms"\neps = 1', "base.toml")
        top = write('extends = "base.toml"\n[model.norm]\nuse = "layer"')
        assert read_document(top)["model"] == {"use": "mamba", "d_state": 4, "norm": {"use": "layer"}}
        other = write('extends = "base.toml"\n[model]\nuse = "s4d"', "other.toml")
        assert read_document(other) == {"model": {"use": "s4d"}}

    def test_a_table_that_repeats_its_use_is_merged(self, write):
        write('[model]\nuse = "mamba"\nd_state = 4', "base.toml")
        top = write('extends = "base.toml"\n[model]\nuse = "mamba"\nd_conv = 2')
        assert read_document(top)["model"] == {"use": "mamba", "d_state": 4, "d_conv": 2}

    def test_a_circle_is_named(self, write):
        write('extends = "b.toml"', "a.toml")
        path = write('extends = "a.toml"', "b.toml")
        with pytest.raises(InputError, match=r"in a circle: .*b\.toml -> .*a\.toml -> .*b\.toml"):
            read_document(path)

    def test_a_base_that_is_missing_is_named_with_who_wants_it(self, write):
        with pytest.raises(InputError, match=r"gone\.toml', which .*config\.toml extends: No such file"):
            read_document(write('extends = "gone.toml"'))

    @pytest.mark.parametrize("value", ["3", "true", "[1]", '{a = "b"}'])
    def test_anything_but_file_names_is_refused(self, write, value):
        with pytest.raises(ConfigError, match=r"extends: given .*, allowed is a file name or a list"):
            read_document(write(f"extends = {value}"))

    @given(st.recursive(st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner)))
    def test_merging_is_idempotent(self, value):
        table = {"root": value}
        assert merge(table, table) == table
        assert merge({}, table) == merge(table, {}) == table


class TestUnreadableFiles:
    def test_a_missing_file_is_an_input_error(self, tmp_path):
        with pytest.raises(InputError, match=r"gone\.toml': No such file or directory"):
            read_document(tmp_path / "gone.toml")

    def test_a_folder_is_an_input_error(self, tmp_path):
        with pytest.raises(InputError, match="Is a directory"):
            read_document(tmp_path)

    def test_what_is_not_toml_is_told_by_line(self, write):
        with pytest.raises(ConfigError, match=r"config\.toml: 1 problem\n  not valid TOML: .*line 2"):
            read_document(write("[a]\nx = = 1"))

    def test_what_is_not_text_is_an_error(self, tmp_path):
        path = tmp_path / "config.toml"
        path.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ConfigError, match="not UTF-8"):
            read_document(path)


class TestOverrides:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("a.x=5", 5),
            ("a.x = 5", 5),
            ("a.x=5.0", 5.0),
            ("a.x=3e-3", 3e-3),
            ("a.x=true", True),
            ('a.x="5"', "5"),
            ("a.x='5'", "5"),
            ("a.x=python-docs", "python-docs"),
            ("a.x=runs/a b", "runs/a b"),
            ("a.x=", ""),
            ("a.x=b=c", "b=c"),
            ("a.x=[1, 2]", [1, 2]),
            ("a.x={use = 'mamba'}", {"use": "mamba"}),
            ("a.x=${b.y}", "${b.y}"),
        ],
    )
    def test_a_value_is_toml_and_text_where_it_is_not(self, write, text, value):
        found = read_document(write("[a]\nx = 1"), [text])["a"]["x"]
        assert found == value
        assert type(found) is type(value)

    def test_tables_on_the_way_are_made(self, write):
        assert read_document(write(""), ["a.b.c=1"]) == {"a": {"b": {"c": 1}}}

    def test_the_last_wins(self, write):
        assert read_document(write(""), ["a.b=1", "a.b=2"]) == {"a": {"b": 2}}

    def test_they_lie_over_the_files(self, write):
        write("[a]\nx = 1\ny = 1", "base.toml")
        assert read_document(write('extends = "base.toml"'), ["a.x=9"]) == {"a": {"x": 9, "y": 1}}

    def test_an_override_of_use_keeps_the_options_beside_it(self, write):
        path = write('[optimizer]\nuse = "adamw"\nlr = 0.1')
        assert read_document(path, ["optimizer.use=lion"])["optimizer"] == {"use": "lion", "lr": 0.1}

    @pytest.mark.parametrize("text", ["a", "", "=1", ".a=1", "a.=1", "a..b=1"])
    def test_what_is_no_assignment_is_refused(self, write, text):
        with pytest.raises(ConfigError, match=r"is not of the form section\.key=value"):
            read_document(write(""), [text])

    def test_a_value_is_not_turned_into_a_table(self, write):
        with pytest.raises(ConfigError, match=r"a\.x\.y: override 'a\.x\.y=1': 'x' is 5, not a table"):
            read_document(write("[a]\nx = 5"), ["a.x.y=1"])

    numbers = st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.floats(allow_nan=False)
    texts = st.text(st.characters(exclude_categories=["Cs"]))

    @given(st.recursive(numbers | texts, st.lists))
    def test_a_value_written_as_toml_is_read_back(self, value):
        written = tomli_w.dumps({"v": value}).partition(" = ")[2].strip()
        table = {}
        _apply(table, f"a.b={written}")
        assert table == {"a": {"b": value}}


def no_default(path):
    raise KeyError(path)


class TestReferences:
    def resolve(self, table, default=no_default):
        return resolve_references(table, default)

    @pytest.mark.parametrize("value", [5, 2.5, True, "text", [1, "a"], {"use": "x", "k": [1]}, math.inf])
    def test_a_whole_reference_keeps_the_type(self, value):
        table, problems = self.resolve({"a": {"x": value}, "b": {"y": "${a.x}", "z": "${ a.x }"}})
        assert table["b"] == {"y": value, "z": value}
        assert type(table["b"]["y"]) is type(value)
        assert problems == []

    def test_a_reference_within_a_text_becomes_text(self):
        table, _ = self.resolve({"a": {"n": 5, "on": True, "s": "x"}, "b": "run-${a.n}-${a.on}/${a.s}"})
        assert table["b"] == "run-5-true/x"

    def test_references_are_followed_and_found_in_lists_and_nested_tables(self):
        table, problems = self.resolve({"a": {"x": 1, "y": "${a.x}"}, "b": [["${a.y}"], {"c": "${a.y}"}]})
        assert table["b"] == [[1], {"c": 1}]
        assert problems == []

    def test_a_table_brought_by_reference_is_resolved_too(self):
        table, _ = self.resolve({"a": {"x": {"y": "${c}"}}, "b": "${a.x}", "c": 3})
        assert table["b"] == {"y": 3}

    def test_what_the_table_leaves_out_comes_from_the_defaults(self):
        table, problems = self.resolve({"a": {}, "b": "${a.x}"}, {"a.x": 7}.__getitem__)
        assert (table["b"], problems) == (7, [])

    @pytest.mark.parametrize(
        ("table", "path", "says"),
        [
            ({"b": "${a.x}"}, "b", "${a.x} refers to no value"),
            ({"a": {"d_state": 1}, "b": "${a.d_sate}"}, "b", "Did you mean 'a.d_state'?"),
            ({"a": {"x": 1}, "b": "${a.x.y}"}, "b", "refers to no value"),
            ({"a": "${a}"}, "a", "refers to itself: a -> a"),
            ({"a": {"b": "${a}"}}, "a.b", "${a} refers to itself"),
            ({"a": {"x": [1]}, "b": "n=${a.x}"}, "b", "${a.x} is a list, which cannot stand within a text"),
            ({"a": {"x": 1}, "b": "n=${a}"}, "b", "${a} is a table, which cannot"),
            ({"b": ["${no}"]}, "b[0]", "refers to no value"),
        ],
    )
    def test_what_cannot_be_followed_is_a_problem_where_it_stands(self, table, path, says):
        _, (problem,) = self.resolve(table)
        assert problem.path == path
        assert says in problem.message

    def test_a_circle_ends_and_each_of_its_members_is_reported(self):
        _, problems = self.resolve({"a": "${b}", "b": "${c}", "c": "${a}"})
        assert problems[0].message == "${a} refers to itself: a -> b -> c -> a"
        assert {problem.path for problem in problems} <= {"a", "b", "c"}

    def test_a_wrong_reference_is_reported_once_however_often_it_is_reached(self):
        _, problems = self.resolve({"a": "${b}", "b": "${nope}", "c": "${b}", "d": "${c}"})
        assert [problem.path for problem in problems] == ["b"]

    def test_the_table_given_is_left_as_it_was(self):
        table = {"a": {"x": [1]}, "b": "${a.x}"}
        resolved, _ = self.resolve(table)
        resolved["b"].append(2)
        assert table == {"a": {"x": [1]}, "b": "${a.x}"}

    @pytest.mark.parametrize("text", ["$", "${", "${}", "$x", "{x}", "a $ b"])
    def test_other_dollars_are_text(self, text):
        table, problems = self.resolve({"a": text})
        if text == "${}":
            assert len(problems) == 1
        else:
            assert (table, problems) == ({"a": text}, [])
