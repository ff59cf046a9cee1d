"""What docs/how-to/training.md shows of configs is what `helix config check` takes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

PAGE = (Path(__file__).parent.parent / "docs/how-to/training.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL)
COMMANDS = re.findall(r"^helix train config\.toml (\w\S*=\S+)", PAGE, flags=re.MULTILINE)
# Lines such as `metrics = [...]`, of the section that the page is about.
LINES = re.findall(r"`((?:trainer\.|schedule\.)?(?!apply\b)[a-z_]+ = [^`]+)`", PAGE)
REST = {
    "model": {"use": '"language-model"', "d_model": "16", "n_layers": "1", "mixer": '{ use = "mamba" }'},
    "data": {"use": '"text-bytes"', "source": '"python-docs"'},
    "loss": {"use": '"cross-entropy"'},
    "optimizer": {"use": '"adamw"'},
    "schedule": {"use": '"cosine"'},
    "trainer": {"steps": "10", "out": '"runs/x"'},
}


def completed(shown: str) -> str:
    """Return a whole config: what is shown, and of what it leaves out the rest."""
    own = tomllib.loads(shown)
    rest = [
        f"{section}.{option} = {value}"
        for section, options in REST.items()
        for option, value in options.items()
        if option not in own.get(section, {})
    ]
    return "\n".join([*rest, *as_assignments(shown)])


def as_assignments(shown: str) -> list[str]:
    """Return the lines of one table with its name before each, so that others can be set beside it."""
    header, _, lines = shown.partition("\n")
    section = header.strip("[]")
    return [re.sub(r"^(?=[a-z_]+ = )", f"{section}.", line) for line in lines.splitlines()]


def in_its_section(line: str) -> str:
    section, dot, option = line.partition(" = ")[0].rpartition(".")
    value = line.partition(" = ")[2]
    return f"[{section if dot else 'trainer'}]\n{option} = {value}"


def test_the_page_shows_configs():
    assert len(BLOCKS) >= 1
    assert len(LINES) >= 6
    assert COMMANDS


@pytest.mark.parametrize("shown", [*BLOCKS, *map(in_its_section, LINES)])
def test_a_config_that_is_shown_is_one(tmp_path, helix, shown):
    path = tmp_path / "config.toml"
    path.write_text(completed(shown))
    code, _, error = helix("config", "check", path)
    assert code == 0, error


@pytest.mark.parametrize("assignment", COMMANDS)
def test_an_assignment_that_is_shown_is_one(tmp_path, helix, assignment):
    path = tmp_path / "config.toml"
    path.write_text(completed("[trainer]\n"))
    code, _, error = helix("config", "check", path, assignment)
    assert code == 0, error
