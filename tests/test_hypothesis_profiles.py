"""Drawn examples are the same in each run of the tests, unless new ones are asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parent.parent
PROBE = """
from pathlib import Path

from hypothesis import given, strategies

@given(strategies.integers())
def test_probe(number):
    with Path("drawn.txt").open("a") as file:
        print(number, file=file)
"""


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """Run a drawing test as `make test` would; returns what was drawn."""
    (tmp_path / "test_probe.py").write_text(PROBE)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)

    def run(*options: str, **environment: str) -> str:
        drawn = tmp_path / "drawn.txt"
        drawn.unlink(missing_ok=True)
        words = ["-c", ROOT / "pyproject.toml", "--rootdir", ROOT, "-p", "no:cacheprovider", *options]
        subprocess.run(
            [sys.executable, "-m", "pytest", *words, "test_probe.py"],
            cwd=tmp_path,
            env={**os.environ, **environment},
            check=True,
        )
        return drawn.read_text()

    return run


def test_two_runs_draw_the_same_in_one_process_and_in_workers(draw):
    first = draw()
    assert len(first.splitlines()) > 50
    assert draw("-n", "1") == first


@pytest.mark.parametrize("ci", [{}, {"CI": "true"}], ids=["by hand", "in CI"])
def test_a_variable_of_the_environment_draws_anew(draw, ci):
    anew = {"PYTEST_ADDOPTS": "--hypothesis-profile=anew", **ci}
    assert draw(**anew) != draw(**anew)


def test_no_conftest_has_a_profile_of_its_own():
    folders = [ROOT / "tests", *ROOT.glob("plugins/*/tests"), *ROOT.glob("helix-*/tests")]
    conftests = [path for folder in folders for path in folder.rglob("conftest.py")]
    assert len(conftests) > 3
    assert not [path for path in conftests if "hypothesis" in path.read_text()]
    assert settings.get_current_profile_name() in ("helix", "anew")
