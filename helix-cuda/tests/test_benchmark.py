"""The benchmark's script says that it needs a GPU, and runs through without one at small sizes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "tests/benchmarks/cuda/run.py"


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_measures_nothing():
    finished = run()
    assert finished.returncode == 2
    assert "no GPU" in finished.stderr


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_case_runs_at_small_sizes(tmp_path):
    interpreted = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    finished = run("--smoke", "--out", tmp_path / "page.md", **interpreted)
    assert finished.returncode == 0, finished.stderr
    page = (tmp_path / "page.md").read_text()
    assert page.count("forward") >= 9
    assert "decoding step" in page
