"""The example trains unchanged where these kernels serve, and its losses track those of the references."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helix_kernel.cli import main

EXAMPLE = Path(__file__).parents[2] / "docs/examples/ssm-byte-lm.toml"
SMALL = (
    "model.d_model=16",
    "model.n_layers=1",
    "data.seq_len=24",
    "data.validation_fraction=0.0",
    "data.batch_size=2",
    "trainer.steps=2",
    "trainer.log_every=1",
    "trainer.measure_speed=false",
    "trainer.samples=0",
)


@pytest.fixture
def losses(tmp_path, device):
    """Return what trains the example, on little text, with backends, and gives its losses."""
    text, config = tmp_path / "text.txt", tmp_path / "config.toml"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 20)
    config.write_text(EXAMPLE.read_text().replace('source = "python-docs"', f'paths = ["{text}"]'))

    def train(*backends):
        out = tmp_path / "-".join(backends)
        names = ", ".join(f'"{name}"' for name in backends)
        own = (f"trainer.out={out}", f"trainer.device={device}", f"kernel.backends=[{names}]")
        with pytest.raises(SystemExit) as ended:
            main(["train", str(config), *SMALL, *own])
        assert not ended.value.code
        records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        return [record["loss"] for record in records if "loss" in record]

    return train


def test_losses_track_the_references(losses):
    assert losses("cuda-triton", "auto") == pytest.approx(losses("reference"), rel=2e-5)
