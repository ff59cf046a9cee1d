"""``pytest --helix-provider NAME`` passes for each first-party distribution, and skips nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def outcomes(provider, *only):
    """Run a provider's derived cases; return how many there were of each outcome."""
    select = ["-k", " or ".join(only)] if only else []
    command = [sys.executable, "-m", "pytest", "--helix-provider", provider, "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *select],
        cwd=ROOT,
        env={**os.environ, "PYTEST_ADDOPTS": "", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {word: int(count) for count, word in re.findall(r"(\d+) (\w+)", done.stdout.splitlines()[-1])}


def test_some_of_a_providers_components_pass_their_suites():
    found = outcomes("helix-train", "manifest-train", "loss-cross-entropy", "optimizer-adamw")
    assert found["passed"] > 20
    assert set(found) <= {"passed", "deselected"}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("provider", "at_least"),
    [
        ("helix-cpu", 100),
        ("helix-cuda", 10),
        ("helix-data", 300),
        ("helix-multimodal", 200),
        ("helix-ray", 20),
        ("helix-ssm", 1000),
        ("helix-topo", 100),
        ("helix-train", 700),
    ],
)
def test_all_of_a_providers_components_pass_their_suites(provider, at_least):
    found = outcomes(provider)
    assert found["passed"] >= at_least
    assert set(found) <= {"passed", "xfailed", "deselected"}
