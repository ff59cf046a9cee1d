"""The walk over tokens instead of bytes: train, resume, evaluate, generate."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

if TYPE_CHECKING:
    from pathlib import Path

TEXT = "the cat sat on the mat and the dög sat on the lög\n" * 200


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text, and a tokenizer trained on it."""
    folder = tmp_path_factory.mktemp("tokens")
    (folder / "text.txt").write_text(TEXT)
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=270, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([TEXT], trainer)
    backend.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def train(helix, files, write, tmp_path):
    """Train on the text's tokens; returns exit code, output and error."""
    config = write(f"""
        [model]
        use = "language-model"
        d_model = 16
        n_layers = 1
        vocab_size = 270
        mixer.use = "mamba"

        [data]
        use = "text-tokens"
        paths = ['{files}/text.txt']
        tokenizer = {{ use = "hf-tokenizer", path = '{files}/tokenizer.json' }}
        seq_len = 32
        batch_size = 4

        [loss]
        use = "cross-entropy"

        [optimizer]
        use = "adamw"
        lr = 2e-2

        [schedule]
        use = "constant"

        [trainer]
        out = '{tmp_path}/run'
        steps = 40
        log_every = 1
        """)
    return lambda *overrides: helix("train", config, *overrides)


def records(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_model_over_tokens_trains_evaluates_and_generates(train, helix, tmp_path):
    run = tmp_path / "run"
    code, _, err = train()
    assert code == 0, err
    assert "tokens of 270 ids" in err
    first, *_, last, validation = records(run)
    assert last["loss"] < 0.5 * first["loss"]
    assert "bits_per_byte" not in last
    _, out, _ = helix("eval", run, "--json")
    found = json.loads(out)
    assert found["bits_per_byte"] == pytest.approx(validation["validation_bits_per_byte"], rel=1e-6)
    assert found["loss_per_token"] == pytest.approx(validation["validation_loss"], rel=1e-6)
    n_held_out = int(len(TEXT.encode()) * 0.1)
    tokens_per_byte = (found["tokens"] + 1) / n_held_out
    assert tokens_per_byte < 0.5
    expected = found["loss_per_token"] / math.log(2) * tokens_per_byte
    assert found["bits_per_byte"] == pytest.approx(expected, rel=1e-6)
    _, out, _ = helix("generate", run, "--prompt", "the dö", "--n-bytes", 40, "--temperature", 0)
    assert out.startswith("the dö")
    assert out.count("the") > 1
    assert 40 <= len(out.removesuffix("\n").removeprefix("the dö").encode()) < 60


def test_resuming_equals_never_having_stopped_to_the_bit(train, helix, tmp_path):
    whole = ["trainer.steps=12", f"trainer.out={tmp_path}/whole"]
    assert train(*whole)[0] == 0
    broken = ["trainer.steps=12", f"trainer.out={tmp_path}/broken"]
    assert train(*broken, "trainer.steps=7")[0] == 0
    assert train(*broken, "trainer.resume=true")[0] == 0
    steps = [[r for r in records(tmp_path / name) if "loss" in r] for name in ("whole", "broken")]
    assert steps[0] == steps[1]


def test_a_model_with_fewer_ids_than_the_tokenizer_is_refused(train, tmp_path):
    code, _, err = train("model.vocab_size=256")
    assert code == 2
    assert "the model takes 256 ids and the data have 270; raise model.vocab_size by 14" in err
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_that_does_not_exist_is_one_clear_error(train, tmp_path):
    code, _, err = train("data.tokenizer.path=nowhere.json")
    assert code == 2
    assert "path='nowhere.json': cannot be read" in err
    assert err.count("error:") == 1
