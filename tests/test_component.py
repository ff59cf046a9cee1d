"""The records that a manifest is made of, and the options of config classes."""

from __future__ import annotations

import re

import attrs
import pytest

from helix_kernel import Component, Kind, option
from helix_kernel.component import reads_version
from helix_kernel.errors import ArgumentError, ConfigError, Problem, did_you_mean, nearest
from helix_kernel.options import Bounds


class TestComponent:
    @pytest.mark.parametrize("name", ["mamba", "rms-norm", "l1", "causal_conv1d", "a-1-b", "3d"])
    def test_kebab_case_and_op_names_are_allowed(self, name):
        assert Component(name=name, target="a:b").name == name

    @pytest.mark.parametrize("name", ["", "RMSNorm", "a b", "-a", "a-", "a--b", "a:b", "a.b", "a-b_c", "ä"])
    def test_other_names_are_refused(self, name):
        with pytest.raises(ArgumentError, match="not kebab-case"):
            Component(name=name, target="a:b")

    @pytest.mark.parametrize("target", ["a:b", "a.b.c:D", "a_1:B.c"])
    def test_a_target_is_module_and_attribute(self, target):
        assert Component(name="x", target=target, config=target).target == target

    @pytest.mark.parametrize("target", ["", "a", "a.b", ":b", "a:", "a:b:c", "a:b()", "1a:b", "a b:c"])
    @pytest.mark.parametrize("field", ["target", "config"])
    def test_other_targets_are_refused(self, field, target):
        with pytest.raises(ArgumentError, match=re.escape(f"component 'x': {field}={target!r}")):
            Component(**{"name": "x", "target": "a:b", field: target})

    def test_its_names_begin_with_its_own(self):
        described = Component(name="x", target="a:b", aliases=["y"], deprecated={"z": "1"}, provider="p")
        assert described.names == ("x", "y", "z")
        assert described.qualified == "p:x"


class TestVersions:
    @pytest.mark.parametrize(
        ("reads", "saved", "installed", "expected"),
        [
            (">=0.1", "0.1.0", "0.2.0", True),
            (">=0.1", "0.2.0", "0.2.0", False),
            (">=0.1", "0.3.0", "0.2.0", False),
            (">=0.2", "0.1.9", "0.3.0", False),
            (">=0.1,!=0.1.3", "0.1.3", "0.2.0", False),
            ("", "0.1.0", "0.2.0", False),
            (">=0.1", "unknown", "0.2.0", False),
        ],
    )
    def test_only_older_versions_that_are_declared_are_read(self, reads, saved, installed, expected):
        assert reads_version(reads, saved, installed) is expected

    def test_upgrades_run_in_the_order_of_versions_from_the_saved_to_the_installed(self):
        steps = {"0.10": "a:ten", "0.2": "a:two", "0.9": "a:nine", "0.11": "a:later"}
        part = Component(name="x", target="a:b", version="0.10.1", reads=">=0.1", upgrades=steps)
        assert part.upgrades_from("0.1") == ["a:two", "a:nine", "a:ten"]
        assert part.upgrades_from("0.9") == ["a:ten"]
        assert part.upgrades_from("0.10.1") == []

    def test_upgrades_without_the_versions_that_they_begin_with_are_refused(self):
        with pytest.raises(ArgumentError, match="'x': upgrades without reads"):
            Component(name="x", target="a:b", upgrades={"0.2": "a:two"})

    def test_an_upgrade_is_a_module_and_a_function(self):
        with pytest.raises(ArgumentError, match="'x': upgrades='two' is not"):
            Component(name="x", target="a:b", reads=">=0.1", upgrades={"0.2": "two"})


def test_a_kind_has_a_hook():
    assert Kind(name="memory_tier", plural="memory_tiers").hook == "helix_memory_tiers"


class TestOptions:
    @pytest.mark.parametrize(
        ("bounds", "inside", "outside"),
        [
            (Bounds(gt=0), [1e-9, 5], [0, -1, float("nan")]),
            (Bounds(ge=0), [0, 5], [-1e-9, float("nan")]),
            (Bounds(lt=1), [0.999, -5], [1, 2]),
            (Bounds(le=1), [1, -5], [1.001]),
            (Bounds(ge=0, lt=1), [0, 0.5], [1, -0.1]),
            (Bounds(ge=0), [True, "text", None, [1, 2], (1, [0])], [[1, -1], (0, -1), [[1, -1]]]),
        ],
    )
    def test_bounds_judge_numbers_and_nothing_else(self, bounds, inside, outside):
        assert [bounds.admits(value) for value in inside] == [True] * len(inside)
        assert [bounds.admits(value) for value in outside] == [False] * len(outside)

    def test_a_config_class_refuses_with_name_value_and_range(self):
        @attrs.frozen
        class Settings:
            rate: float = option(0.5, gt=0, le=1, help="a fraction")

        with pytest.raises(ArgumentError, match=r"rate is 2, allowed is > 0 and <= 1"):
            Settings(rate=2)

    def test_the_help_is_kept(self):
        @attrs.frozen
        class Settings:
            rate: float = option(0.5, help="a fraction")

        assert attrs.fields(Settings).rate.metadata["help"] == "a fraction"


class TestSuggestions:
    @pytest.mark.parametrize(
        ("name", "known", "expected"),
        [
            ("d_sate", ["d_state", "d_conv"], "d_state"),
            ("d-state", ["d_state"], "d_state"),
            ("Mamba", ["mamba", "s4d"], "mamba"),
            ("rms_norm", ["rms-norm"], "rms-norm"),
            ("zzz", ["mamba"], None),
            ("x", [], None),
        ],
    )
    def test_the_nearest_name_is_found_across_case_and_separators(self, name, known, expected):
        assert nearest(name, known) == expected

    def test_no_near_name_is_no_suggestion(self):
        assert did_you_mean("zzz", ["mamba"]) == ""
        assert did_you_mean("mamba2", ["mamba"]) == " Did you mean 'mamba'?"


def test_a_config_error_lists_every_problem_with_its_path():
    error = ConfigError([Problem("a.b", "wrong"), Problem("", "missing")], "file.toml")
    assert str(error) == "file.toml: 2 problems\n  a.b: wrong\n  missing"
    assert str(ConfigError([Problem("a", "wrong")])).startswith("1 problem\n")
    assert repr(error.problems[0]) == "Problem('a.b', 'wrong')"
