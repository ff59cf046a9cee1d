"""The example of byte tokens, made small: codes are learnt, all are used, and resuming changes no bit."""

from __future__ import annotations

import json
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest

from helix_kernel import checkpoint
from helix_kernel.nesting import flatten

EXAMPLE = Path(__file__).parent.parent / "docs/examples/byte-tokens.toml"
SMALL = ["model.d_model=16", "data.seq_len=64", "data.batch_size=8", "trainer.log_every=1"]
QUANTIZERS = {
    "vq": 'use = "vq"\nn_codes = 32\ndecay = 0.5\nreplace_after = 1\n',
    "rvq": 'use = "rvq"\nn_quantizers = 2\nn_codes = 32\ndecay = 0.5\nreplace_after = 1\n',
    "fsq": 'use = "fsq"\nlevels = [4, 4, 4]\n',
}


@pytest.fixture
def train(helix, write, tmp_path):
    """Train the example with a quantizer; returns the run's directory."""
    corpus = tmp_path / "text"
    corpus.write_bytes("\n".join(topics.values()).encode()[:20_000])
    text = EXAMPLE.read_text().replace('source = "python-docs"', f"paths = ['{corpus}']")
    head, _, tail = text.partition("[model.quantizer]\n")

    def run(name, quantizer, *overrides):
        config = write(f"{head}[model.quantizer]\n{quantizer}\n{tail[tail.index('[data]') :]}")
        out = tmp_path / name
        code, _, err = helix("train", config, *SMALL, f"trainer.out={out}", *overrides)
        assert code == 0, err
        return out

    return run


def records(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def weights(run):
    (newest,) = (run / "checkpoints").glob("step-00000010")
    return {name: np.asarray(value) for name, value in flatten(checkpoint.load(newest)["model"]).items()}


def test_bits_per_byte_go_down_and_the_codes_are_used(train, helix):
    options = QUANTIZERS["rvq"].replace("decay = 0.5\nreplace_after = 1", "decay = 0.9\nreplace_after = 20")
    run = train("run", options, "trainer.steps=40", "optimizer.lr=2e-2")
    first, *_, last, validation = records(run)
    assert first["bits_per_byte"] > 7
    assert last["bits_per_byte"] < 4
    for book in (0, 1):
        assert last[f"quantizer.{book}.codes_used"] > 0.9
        assert last[f"quantizer.{book}.perplexity"] > 16
    assert sorted(name for name in last if name.startswith("quantizer")) == [
        f"quantizer.{book}.{name}" for book in (0, 1) for name in ("codes_used", "dead_codes", "perplexity")
    ]
    code, printed, err = helix("eval", run, "--json")
    assert code == 0, err
    found = json.loads(printed)["bits_per_byte"]
    assert found == pytest.approx(validation["validation_bits_per_byte"], rel=1e-6)


@pytest.mark.parametrize(
    "name", [pytest.param("vq", marks=pytest.mark.slow), "rvq", pytest.param("fsq", marks=pytest.mark.slow)]
)
def test_resuming_equals_never_having_stopped_to_the_bit(train, name):
    """K-means come in the first step; dead codes are moved to random vectors before and after the stop."""
    steps = ["trainer.steps=10", "trainer.checkpoint_every=5", "trainer.keep=9"]
    whole = train("whole", QUANTIZERS[name], *steps)
    broken = train("broken", QUANTIZERS[name], *steps)
    (broken / "checkpoints/step-00000010").rename(broken / "lost")
    train("broken", QUANTIZERS[name], *steps, "trainer.resume=true")
    assert (broken / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    found, expected = weights(broken), weights(whole)
    assert found.keys() == expected.keys()
    assert "quantizer.use.frequencies" in found
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)


@pytest.mark.slow
def test_a_resumed_run_needs_the_random_numbers_of_the_checkpoint(train, monkeypatch):
    """Were they drawn elsewhere, or not at all, the test above could not fail."""
    steps = ["trainer.steps=10", "trainer.checkpoint_every=5", "trainer.keep=9"]
    whole = train("whole", QUANTIZERS["vq"], *steps)
    broken = train("broken", QUANTIZERS["vq"], *steps)
    (broken / "checkpoints/step-00000010").rename(broken / "lost")
    monkeypatch.setattr("torch.set_rng_state", lambda state: None)
    train("broken", QUANTIZERS["vq"], *steps, "trainer.resume=true")
    assert (broken / "metrics.jsonl").read_bytes() != (whole / "metrics.jsonl").read_bytes()
