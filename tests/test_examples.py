"""Every example in docs/examples runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "docs/examples"


@pytest.mark.parametrize("config", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.name)
def test_the_config_is_sound(config: Path):
    command = [sys.executable, "-m", "helix_kernel.cli", "config", "check", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_demo_ends_with_one_line_of_json(tmp_path: Path):
    small = ["model.d_model=16", "model.n_layers=1", "data.seq_len=128", "data.batch_size=4"]
    steps = ["trainer.steps=120", "trainer.checkpoint_every=10", "trainer.seed=3"]
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "demo.py"), *small, *steps],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout.splitlines()[-1])
    assert set(results) == {"bits_per_byte", "gzip", "xz", "checkpoint", "plot"}
    assert results["xz"] < results["gzip"] < results["bits_per_byte"] < 8
    assert (tmp_path / results["checkpoint"] / "manifest.json").exists()
    assert (tmp_path / results["plot"]).read_bytes().startswith(b"\x89PNG")
    assert "killed it" in done.stdout
    assert "resuming from" in done.stderr
