"""Commands of plugins that stand in a group: `helix data show` beside `helix data-show`."""

from __future__ import annotations

import pytest

from helix_kernel.cli.app import commands, make_app
from helix_kernel.cli.direct import spelling


def offered(name, *aliases, provider="toy"):
    return {
        "name": name,
        "aliases": aliases,
        "provider": provider,
        "summary": name,
        "target": "builtins:print",
    }


def test_an_alias_of_two_words_is_a_command_in_a_group(capsys):
    app = make_app(commands([offered("toy-show", "toy show"), offered("alone")]))
    for words in (["toy", "show", "it"], ["toy-show", "it"], ["toy:toy-show", "it"], ["alone", "it"]):
        app(words, result_action="return_value")
        assert capsys.readouterr().out == "it\n"
    app(["toy", "--help"], result_action="return_value")
    assert "Commands: show" in capsys.readouterr().out


def test_a_command_is_no_group_of_others(capsys):
    app = make_app(commands([offered("toy-show", "toy show"), offered("toy", provider="other")]))
    for words in (["toy", "show"], ["toy-show", "show"]):
        app(words, result_action="return_value")
        assert capsys.readouterr().out == "show\n"


def test_listings_spell_a_command_as_its_group_does():
    assert spelling(offered("toy-show", "other", "toy show")) == "toy show"
    assert spelling(offered("toy-show", "other")) == "toy-show"


@pytest.mark.parametrize("group", ["config", "checkpoint", "plugins"])
def test_no_plugin_brings_a_command_into_a_group_of_the_kernel(group):
    assert list(commands([offered("toy-own", f"{group} own")])) == ["toy:toy-own", "toy-own"]


def test_a_command_in_a_group_that_two_plugins_claim_is_given_to_neither():
    found = commands([offered("a-b", "a b"), offered("a-b", "a b", provider="other")])
    assert list(found) == ["toy:a-b", "other:a-b"]
