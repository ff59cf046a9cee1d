"""What a docstring says of each argument is found, and nothing else."""

from __future__ import annotations

import inspect

import pytest

from helix_kernel import default_kernel
from helix_kernel.config.docstrings import argument_docs
from helix_kernel.config.schema import schema_of


def documented():
    """Do something.

    Args:
        width: How wide: in channels,
            and it goes on.
        depth (int): How deep.
            note: not an argument.
        bare:

    Returns:
        result: What is no argument.
    """


def test_arguments_are_found_with_their_whole_text():
    assert argument_docs(inspect.getdoc(documented)) == {
        "width": "How wide: in channels, and it goes on.",
        "depth": "How deep. note: not an argument.",
        "bare": "",
    }


@pytest.mark.parametrize("doc", ["", "One line.", "Args of a kind: none"])
def test_no_section_is_no_argument(doc):
    assert argument_docs(doc) == {}


def test_every_option_of_a_first_party_component_is_documented_wherever_it_is_read_from():
    components = [c for c in default_kernel().components() if c.kind != "op"]
    silent = [
        f"{c.kind} {c.qualified}: {option.name}"
        for c in components
        for option in schema_of(c).options.values()
        if not option.help.strip()
    ]
    assert len(components) > 80
    assert silent == []
