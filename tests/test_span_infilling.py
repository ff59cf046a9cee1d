"""The example of span infilling, made small: it trains, resumes, and is measured over its blanks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent.parent / "docs/examples/hyena-span-infilling.toml"
SMALL = ["model.d_model=8", "data.seq_len=32", "data.batch_size=4", "trainer.log_every=1"]


@pytest.fixture
def train(helix, write, tmp_path):
    """Train the example on a text of the alphabet over and over, which is soon learnt."""
    config = write(EXAMPLE.read_text().replace('source = "python-docs"', ""))
    text = tmp_path / "text.txt"
    text.write_bytes(bytes(97 + index % 26 for index in range(2000)))

    def run(name, *overrides):
        out = tmp_path / name
        code, _, err = helix(
            "train", config, *SMALL, f"data.paths=['{text}']", f"trainer.out={out}", *overrides
        )
        assert code == 0, err
        return out

    return run


def records(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_it_learns_and_is_measured_over_its_blanks(train, helix):
    run = train("run", "trainer.steps=60", "optimizer.lr=2e-2")
    first, *_, last, validation = records(run)
    assert last["loss"] < 0.8 * first["loss"]
    _, out, _ = helix("eval", run, "--json")
    found = json.loads(out)
    assert found["bits_per_byte"] == pytest.approx(validation["validation_bits_per_byte"], rel=1e-6)
    n_windows, rest = divmod(200, 32)
    assert found["bytes"] == n_windows * round(32 * 0.15) + round(rest * 0.15)


def test_resuming_equals_never_having_stopped_to_the_bit(train):
    whole = train("whole", "trainer.steps=8", "model.dropout=0.2")
    train("broken", "trainer.steps=8", "model.dropout=0.2", "trainer.checkpoint_every=5", "trainer.keep=9")
    broken = whole.with_name("broken")
    newest = broken / "checkpoints/step-00000008"
    newest.rename(broken / "lost")
    train("broken", "trainer.steps=8", "model.dropout=0.2", "trainer.resume=true")
    assert (broken / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_what_looks_both_ways_does_not_stream(train, helix):
    with pytest.raises(AssertionError, match=r"SpanInfiller has no init_state\(\).*trainer.chunk_len=0"):
        train("run", "trainer.chunk_len=8")
    run = train("run", "trainer.steps=1")
    for command, options, message in (
        ("eval", ["--stream"], "SpanCorruption brings batches of its own"),
        ("generate", ["--prompt", "a"], "SpanInfiller has no init_state(); it cannot generate"),
    ):
        code, _, err = helix(command, run, *options)
        assert code == 2
        assert message in err
