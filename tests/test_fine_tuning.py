"""A model of Hugging Face is imported and trained on, from its own weights."""

from __future__ import annotations

import json

import pytest
import torch

from helix_kernel.checkpoint import load

TRAINING = """
[data]
use = "text-bytes"
paths = ['{text}']
seq_len = 32
batch_size = 2

[loss]
use = "cross-entropy"

[optimizer]
use = "adamw"
lr = 1e-3

[schedule]
use = "constant"

[trainer]
steps = 2
log_every = 1
checkpoint_every = 1
out = '{out}'
"""


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """A small random Mamba of transformers, in its own folder."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 256, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}
    MambaForCausalLM(MambaConfig(**sizes)).save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"


@pytest.fixture
def imported(helix, theirs, tmp_path):
    """The same, imported."""
    code, _, err = helix("import", "hf", theirs, "--out", tmp_path / "imported")
    assert code == 0, err
    return tmp_path / "imported"


@pytest.fixture
def config(imported, tmp_path):
    """The imported model's own config, with all that training needs."""
    (tmp_path / "text.txt").write_bytes(b"to be, or not to be: that is the question. " * 40)
    training = TRAINING.format(text=tmp_path / "text.txt", out=tmp_path / "run")
    config = tmp_path / "config.toml"
    config.write_text((imported / "config.toml").read_text() + training)
    return config


def arrays(run, step):
    model = load(run / f"checkpoints/step-{step:08d}", as_torch=True)["model"]
    return model["embedding"]["weight"], model["blocks"]["1"]["mixer"]["A_log"]


def test_an_imported_model_is_trained_on_from_its_weights(helix, config, imported, tmp_path):
    code, _, err = helix("config", "check", config, f"trainer.initial_weights={imported}")
    assert code == 0, err
    code, _, err = helix("train", config, f"trainer.initial_weights={imported}")
    assert code == 0, err
    assert f"beginning with the weights of {imported}/checkpoints/step-00000000" in err
    assert "note: model" not in err
    for before, after in zip(arrays(imported, 0), arrays(tmp_path / "run", 2), strict=True):
        # Two steps of Adam move a weight by about twice the learning rate, and decay hardly moves it.
        assert 0 < float((after - before).abs().max()) < 4e-3


def test_without_its_weights_it_begins_elsewhere(helix, config, imported, tmp_path):
    code, _, err = helix("train", config)
    assert code == 0, err
    distance = (arrays(tmp_path / "run", 2)[0] - arrays(imported, 0)[0]).abs().max()
    assert float(distance) > 4e-3


def test_a_resumed_run_goes_on_from_its_own_weights(helix, config, imported, tmp_path):
    assert helix("train", config, f"trainer.initial_weights={imported}")[0] == 0
    (imported / "checkpoints").rename(tmp_path / "moved")
    more = ("trainer.steps=3", "trainer.resume=true")
    code, out, err = helix("train", config, f"trainer.initial_weights={imported}", *more, "--json")
    assert code == 0, err
    assert json.loads(out)["step"] == 3
    assert "beginning with" not in err
