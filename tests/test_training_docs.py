"""The options that docs/how-to/training.md names in passing are ones that `helix config check` takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tomli_w
from documents.walk import REST

PAGE = (Path(__file__).parent.parent / "docs/how-to/training.md").read_text(encoding="utf-8")
# Lines such as `metrics = [...]`, of the section that the page is about.
LINES = re.findall(r"`((?:trainer\.|schedule\.)?(?!apply\b)[a-z_]+ = [^`]+)`", PAGE)


def test_the_page_names_options():
    assert len(LINES) >= 6


@pytest.mark.parametrize("line", LINES)
def test_an_option_that_is_named_is_one(write, helix, line):
    name, _, value = line.partition(" = ")
    assignment = f"{name if '.' in name else f'trainer.{name}'}={value}"
    code, _, error = helix("config", "check", write(tomli_w.dumps(REST)), assignment)
    assert code == 0, error
