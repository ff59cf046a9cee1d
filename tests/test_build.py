"""Building: plain objects from plain keyword arguments, and errors that name the component."""

from __future__ import annotations

from pathlib import Path

import pytest
from helix_toy import parts
from helix_toy.config import Window
from helix_toy.make import component, manifest, toy_kernel

from helix_kernel import Factory
from helix_kernel.errors import ArgumentError, ConfigError, DependencyError

KERNEL = toy_kernel()
BLOCK = {"use": "block", "d_model": 4}


def test_the_target_gets_every_option_as_a_plain_keyword_argument():
    built = KERNEL.build("layer", {**BLOCK, "sizes": [3], "where": "there"})
    assert type(built) is parts.Block
    assert built.arguments == {
        "d_model": 4,
        "d_state": 16,
        "rate": 0.1,
        "mode": "fast",
        "label": "block",
        "active": True,
        "sizes": [3],
        "pair": (1, 0.5),
        "limits": {"low": 0.0},
        "window": Window(),
        "maximum": None,
        "either": "auto",
        "where": Path("there"),
    }


def test_what_is_built_holds_nothing_of_the_kernel():
    stack = KERNEL.build("layer", {"use": "stack", "head": BLOCK})
    for built in (stack, stack.head, *stack.blocks):
        assert type(built).__module__ == "helix_toy.parts"
        held = [built, *vars(built).values()]
        assert not [value for value in held if isinstance(value, Factory)]


def test_a_component_is_built_and_a_factory_builds_as_many_as_are_asked_for():
    stack = KERNEL.build("layer", {"use": "stack", "n_layers": 3, "d_model": 5, "head": BLOCK})
    assert [block.arguments["d_model"] for block in stack.blocks] == [5, 5, 5]
    assert len({id(block) for block in stack.blocks}) == 3
    assert stack.head.arguments["d_model"] == 4


def test_a_list_of_factories_reaches_the_target_as_factories():
    stack = KERNEL.build("layer", {"use": "stack", "extras": ["block", {"use": "block", "d_state": 2}]})
    assert [extra.arguments["d_state"] for extra in stack.extras] == [16, 2]


def test_torchs_own_classes_need_no_wrapper():
    import torch

    kernel = toy_kernel(manifest("t", "t", optimizers=[component("adam", "torch.optim:Adam")]))
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = kernel.build("optimizer", {"use": "adam", "lr": 0.5}, params=[weight])
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.param_groups[0]["lr"] == 0.5


class TestContext:
    def test_the_caller_adds_what_the_table_leaves_out(self):
        assert KERNEL.build("layer", "block", d_model=7).arguments["d_model"] == 7

    def test_the_same_holds_for_what_is_resolved_already(self):
        resolved = KERNEL.resolver.resolve("layer", "block", supplied=("d_model",))
        assert KERNEL.build("layer", resolved, d_model=7).arguments["d_model"] == 7

    @pytest.mark.parametrize(
        ("table", "context", "says"),
        [
            ("block", {}, "d_model: missing"),
            (BLOCK, {"d_model": 5}, "d_model: set by what holds this table"),
            (BLOCK, {"dmodel": 5}, "it is given dmodel, but takes d_model, d_state"),
            ("block", {"d_model": 0}, "d_model is 0, allowed is >= 1"),
        ],
    )
    def test_what_does_not_fit_is_a_config_error(self, table, context, says):
        with pytest.raises(ConfigError, match=says):
            KERNEL.build("layer", table, **context)

    @pytest.mark.parametrize(
        ("context", "says"),
        [
            ({}, "layer helix-toy:block cannot be built: d_model missing"),
            ({"d_model": 1, "d_state": 5}, "d_state given by both the config and the caller"),
            ({"d_model": 1, "depth": 5}, "takes no depth; it takes d_model, d_state"),
        ],
    )
    def test_a_factory_refuses_missing_double_and_unknown_arguments(self, context, says):
        factory = KERNEL.factory("layer", {"use": "block", "d_state": 2})
        with pytest.raises(ArgumentError, match=says):
            factory(**context)

    def test_arguments_are_checked_against_each_other_once_all_are_known(self):
        with pytest.raises(ConfigError, match="low=5 is above high=1"):
            KERNEL.build("gadget", "range", low=5, high=1)


class TestFactories:
    def test_each_call_builds_another(self):
        factory = KERNEL.factory("layer", "block")
        first, second = factory(d_model=1), factory(d_model=2)
        assert (first.arguments["d_model"], second.arguments["d_model"]) == (1, 2)

    def test_it_leaves_open_only_what_is_required_and_absent(self):
        assert KERNEL.factory("layer", "block").resolved.supplied == ("d_model",)
        assert KERNEL.factory("layer", BLOCK).resolved.supplied == ()
        assert KERNEL.factory("layer", KERNEL.factory("layer", BLOCK).resolved)().arguments["d_model"] == 4

    def test_it_says_what_it_builds(self):
        factory = KERNEL.factory("layer", "block")
        assert repr(factory) == "Factory(layer helix-toy:block)"
        assert factory.component.name == "block"

    def test_mistakes_are_found_when_it_is_made_not_when_it_is_called(self):
        with pytest.raises(ConfigError, match="Did you mean 'd_state'"):
            KERNEL.factory("layer", {"use": "block", "d_sate": 1})


class TestTargets:
    @pytest.mark.parametrize(("name", "error"), [("refuse", ArgumentError), ("crash", RuntimeError)])
    def test_an_error_of_a_target_says_which_component_it_was(self, name, error):
        with pytest.raises(error) as info:
            KERNEL.build("layer", name)
        assert info.value.__notes__ == [f"while building layer helix-toy:{name}"]

    def test_notes_tell_the_whole_way_down(self):
        with pytest.raises(ArgumentError) as info:
            KERNEL.build("layer", {"use": "anything", "inner": 1, "use_": 2}) and KERNEL.build(
                "layer", "refuse"
            )
        assert info.value.__notes__ == ["while building layer helix-toy:refuse"]

    @pytest.mark.parametrize(
        ("fields", "says"),
        [
            (
                {"target": "no_such_package:Thing", "requires": ("no-such-package",)},
                r"'acme:late'.*No module named 'no_such_package' \(it requires no-such-package\)",
            ),
            ({"target": "helix_toy.parts:NoSuchThing"}, "has no attribute 'NoSuchThing'"),
            ({"target": "broken_part:Thing"}, "cannot be imported: division by zero"),
        ],
    )
    def test_a_target_that_cannot_be_imported_is_a_dependency_error(
        self, tmp_path, monkeypatch, fields, says
    ):
        (tmp_path / "broken_part.py").write_text("1 / 0")
        monkeypatch.syspath_prepend(str(tmp_path))
        config = "helix_toy.config:RangeConfig"
        kernel = toy_kernel(manifest("acme", "acme", layers=[component("late", config=config, **fields)]))
        kernel.resolver.resolve("layer", "late")
        with pytest.raises(DependencyError, match=says):
            kernel.build("layer", "late")

    @pytest.mark.parametrize(
        "config", ["no_such_package:C", "helix_toy.config:NoSuch", "helix_toy.parts:Block"]
    )
    def test_a_config_class_that_is_none_is_a_problem_of_the_config(self, config):
        kernel = toy_kernel(manifest("acme", "acme", layers=[component("late", config=config)]))
        with pytest.raises(ConfigError, match=r"use: .*acme:late"):
            kernel.resolver.resolve("layer", "late")
