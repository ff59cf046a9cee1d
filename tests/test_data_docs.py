"""The configs that docs/how-to/data.md shows are ones that Helix takes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from helix_kernel.config import resolve_document

DOCUMENT = Path(__file__).parent.parent / "docs/how-to/data.md"
BLOCKS = re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block_of_the_document_is_a_config(number):
    table = tomllib.loads(BLOCKS[number])
    resolved = resolve_document(table)
    assert resolved.sections.keys() == table.keys()


def test_there_are_blocks():
    assert len(BLOCKS) == 4
