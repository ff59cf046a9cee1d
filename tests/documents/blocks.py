"""The code blocks of a Markdown page, with what the page says about running them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from pathlib import Path

_BLOCK = re.compile(
    r"(?:^<!-- (?P<marker>not run|parsed|apart): (?P<reason>[^\n]+?) -->\n+)?"
    r"^(?P<fence>`{3,})(?P<language>[^\n`]*)\n(?P<text>.*?)^(?P=fence)[ ]*$",
    flags=re.DOTALL | re.MULTILINE,
)
_FENCED = re.compile(r"^(?P<fence>`{3,})[^\n]*\n.*?^(?P=fence)[ ]*$", flags=re.DOTALL | re.MULTILINE)
_PATH = re.compile(r"# (?P<path>[\w./-]+\.(?:py|toml|md|yml|cpp|cfg|txt))\n")


@attrs.frozen
class Block:
    """A code block.

    Args:
        page: The page that it stands in.
        line: Line of the page where it begins, from 1.
        language: What the fence says: toml, python, sh, console, text, …
        text: What it holds.
        marker: ``""``, ``"not run"``, ``"parsed"`` (commands are parsed, and not run) or ``"apart"`` (Python
            that changes the process runs in one of its own).
        reason: Why it is marked.
    """

    page: Path
    line: int
    language: str
    text: str
    marker: str = ""
    reason: str = ""

    @property
    def path(self) -> str | None:
        """The file that the block is, where its first line is a comment that names one."""
        found = _PATH.match(self.text)
        return found["path"] if found else None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Return a page's code blocks in order; Sphinx's directives are none."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page,
            text.count("\n", 0, found.start("fence")) + 1,
            found["language"].strip(),
            found["text"],
            found["marker"] or "",
            found["reason"] or "",
        )
        for found in _BLOCK.finditer(text)
        if not found["language"].startswith("{")
    ]


def without_blocks(text: str) -> str:
    """Return a page's text without its blocks of code."""
    return _FENCED.sub("", text)


def commands(block: Block) -> list[tuple[str, str]]:
    """Return each command of a block of sh or console, and the output that is shown below it."""
    text = block.text.replace("\\\n", " ")
    if block.language == "console":
        entries = [entry.partition("\n") for entry in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]]
        return [(command, shown) for command, _, shown in entries]
    return [(line, "") for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
