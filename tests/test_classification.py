"""Files told apart by the folder that they lie in: a classifier trains, resumes and is measured."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def train(helix, write, tmp_path):
    """Train a classifier of texts that rise or fall, of many lengths."""
    for name, step in (("rising", 1), ("falling", -1)):
        (tmp_path / "texts" / name).mkdir(parents=True)
        for number in range(40):
            text = bytes(97 + (number + step * index) % 26 for index in range(4 + number % 29))
            (tmp_path / "texts" / name / f"{number}.txt").write_bytes(text)
    config = write(f"""
        [model]
        use = "classifier"
        d_model = 16
        n_layers = 1
        mixer.use = "mamba"

        [data]
        use = "labelled-files"
        path = '{tmp_path}/texts'
        seq_len = 24
        validation_fraction = 0.25

        [loss]
        use = "cross-entropy"

        [optimizer]
        use = "adamw"
        lr = 1e-2

        [schedule]
        use = "constant"

        [trainer]
        steps = 40
        log_every = 1
        """)

    def run(name, *overrides):
        out = tmp_path / name
        code, _, err = helix("train", config, f"trainer.out={out}", *overrides)
        assert code == 0, err
        return out

    return run


def test_it_learns_and_is_measured_by_accuracy(train, helix):
    run = train("run")
    *training, validation = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert training[-1]["loss"] < 0.3 < training[0]["loss"]
    assert "bits_per_byte" not in training[-1]
    _, out, _ = helix("eval", run, "--json")
    found = json.loads(out)
    assert found["accuracy"] == validation["validation_accuracy"] >= 0.9
    assert found["loss"] == pytest.approx(validation["validation_loss"], rel=1e-6)
    assert found["targets"] == 20


def test_resuming_equals_never_having_stopped_to_the_bit(train):
    options = ["trainer.steps=6", "model.dropout=0.2"]
    whole = train("whole", *options)
    broken = train("broken", *options, "trainer.checkpoint_every=4")
    (broken / "checkpoints/step-00000006").rename(broken / "lost")
    train("broken", *options, "trainer.resume=true")
    assert (broken / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
