"""Every block of docs/how-to/checkpoints.md runs as shown, and prints what it says but for numbers."""

from __future__ import annotations

import re
import shlex
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE, OutputChecker
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/how-to/checkpoints.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, flags=re.DOTALL)


def without_numbers(text: str) -> str:
    """Replace what differs between machines and runs: times, sizes, losses."""
    return re.sub(r"\d{4}-\d\d-\d\d \S+|\d+(\.\d+)?(e-?\d+)?( [KM]?i?B\b)?", "#", text)


def run_commands(block: str, helix) -> None:
    for entry in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, expected = entry.partition("\n")
        name, *words = shlex.split(command)
        assert name == "helix"
        code, out, err = helix(*words)
        assert code == 0 or words[:2] == ["checkpoint", "diff"], err
        shown, printed = without_numbers(expected), without_numbers(out)
        assert OutputChecker().check_output(shown, printed, ELLIPSIS | NORMALIZE_WHITESPACE), (
            f"{command} printed\n{out}\nwhere the page says\n{expected}"
        )


def test_every_block_runs_in_order_as_shown(tmp_path, monkeypatch, helix, capsys):
    pytest.importorskip("safetensors.torch")
    pytest.importorskip("fsspec")
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for language, block in BLOCKS:
        if language == "console":
            run_commands(block, helix)
        else:
            assert language == "python"
            exec(compile(block, "docs/how-to/checkpoints.md", "exec"), names)
            capsys.readouterr()  # what it printed is not the next command's


def test_there_are_blocks_of_every_command():
    shown = set(re.findall(r"^\$ helix checkpoint (\w+)", PAGE, flags=re.MULTILINE))
    assert shown == {"list", "inspect", "verify", "diff", "export", "convert", "prune"}
    assert len([language for language, _ in BLOCKS if language == "python"]) >= 4


def test_a_page_that_says_something_else_is_found(helix):
    with pytest.raises(AssertionError, match="where the page says"):
        run_commands("$ helix --version\nhelix zero\n", helix)
