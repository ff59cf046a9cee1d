"""The study of sequence layers: equal models, FLOPs by formula, results kept on file, tables made of them."""

from __future__ import annotations

import re
import sys
import tomllib
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent / "benchmarks/sequence"))
import bits
import mixers
import report
import train
from results import once, read, share
from tasks import TASKS

from helix_kernel import default_kernel


@pytest.mark.parametrize("name", mixers.MIXERS)
def test_every_mixer_has_the_same_number_of_parameters(name: str):
    table = mixers.model_table(name, vocab_size=16)
    assert mixers.count(table) == pytest.approx(mixers.PARAMETERS, rel=mixers.TOLERANCE)
    own = {key: table[key] for key in ("d_model", "n_layers", "vocab_size")}
    assert own == {"d_model": mixers.D_MODEL, "n_layers": mixers.N_LAYERS, "vocab_size": 16}


def test_a_state_is_counted_in_numbers():
    width, depth = mixers.D_MODEL, mixers.N_LAYERS
    sizes = {n: mixers.state_size(mixers.model_table(n, vocab_size=16), 100) for n in ("attention", "lstm")}
    assert sizes == {"attention": 2 * 4 * 32 * 100 * depth, "lstm": 2 * width * depth}


def test_every_layer_along_the_sequence_takes_part():
    used = {layer["use"] for mixer in mixers.MIXERS.values() for layer in _layers(mixer)}
    # Not mixers of their own: wholes, parts, layers across channels, and wrappers of mixers.
    others = {"bidirectional", "classifier", "conv", "language-model", "layer-norm", "linear", "mlp", "moe"}
    others |= {"reversible", "rms-norm", "rwkv7-channel-mix", "span-infiller"}
    others |= {"fsq", "quantised-autoencoder", "rvq", "vq"}
    others |= {"memory-layer"}  # measured with the memories
    others |= {"captioner", "multimodal-classifier", "reconstructor", "retriever"}
    assert {c.name for c in default_kernel().components("layer")} - others == used


def _layers(mixer: dict) -> list[dict]:
    return mixer["pattern"] if "pattern" in mixer else [mixer["mixer"]]


@pytest.mark.parametrize("name", bits.MODELS)
def test_language_models_have_the_transformers_parameters_and_training_flops(name: str):
    assert mixers.count(bits.model_table(name)) == pytest.approx(bits.PARAMETERS, rel=mixers.TOLERANCE)
    whole = bits.TRANSFORMER_STEPS * bits.training_flops(bits.TRANSFORMER)
    assert bits.n_steps(name) * bits.training_flops(name) == pytest.approx(whole, rel=0.01)


def test_the_transformers_flops_are_those_of_its_products_and_norms():
    width = bits.model_table(bits.TRANSFORMER)["channel"]["d_hidden"]
    weights = bits.N_LAYERS * (4 * bits.D_MODEL**2 + 3 * bits.D_MODEL * width) + 256 * bits.D_MODEL
    # Half a square of scores and of sums: two products forward, five backward.
    attention = bits.N_LAYERS * 7 * bits.SEQ_LEN * bits.D_MODEL
    norms = (2 * bits.N_LAYERS + 1) * (4 + 8) * bits.D_MODEL
    tokens = bits.BATCH_SIZE * bits.SEQ_LEN
    assert bits.training_flops(bits.TRANSFORMER) == tokens * (3 * 2 * weights + attention + norms)


def test_bigrams_are_counted_in_the_training_part(monkeypatch):
    class Corpus:
        def read(self, split):
            return b"abac" * 100

        def held_out(self):
            return np.frombuffer(b"abacabac", dtype=np.uint8)

    monkeypatch.setattr(bits, "open_corpus", lambda _: Corpus())
    # After a comes b or c, one bit; after either comes a, none: four and three of these seven.
    assert bits.bigram_bits_per_byte("any") == pytest.approx(4 / 7, abs=0.02)


def test_a_run_measures_every_length_and_can_be_repeated(monkeypatch):
    monkeypatch.setattr(train, "STEPS", 2)
    monkeypatch.setattr(train, "TEST_TOKENS", 512)
    with default_kernel().backends(["reference"]):
        first, again, other = (train.run("attention", "parity", seed=seed) for seed in (0, 0, 1))
    assert first["accuracy"].keys() == {str(length) for length in TASKS["parity"].lengths}
    assert first["steps"] == 2
    assert first["accuracy"] == again["accuracy"] != other["accuracy"]


def test_a_result_on_file_is_not_made_again(tmp_path, capsys):
    path, made = tmp_path / "results.jsonl", []

    def make(value: int) -> dict[str, int]:
        made.append(value)
        return {"value": value}

    for seed in (0, 1, 0):
        assert once(path, {"seed": seed}, lambda seed=seed: make(seed * 10)) == {
            "seed": seed,
            "value": seed * 10,
        }
    assert made == [0, 10]
    assert read(path) == [{"seed": 0, "value": 0}, {"seed": 1, "value": 10}]


def test_shards_share_all_jobs():
    jobs = list(range(7))
    shares = [share(jobs, f"{index}/3") for index in range(3)]
    assert sorted(chain(*shares)) == jobs
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_report_gives_median_range_and_seeds():
    results = [
        _result("mamba", seed, {"32": accuracy, "128": accuracy / 2}, steps=100 + seed)
        for seed, accuracy in enumerate((0.5, 0.9, 0.6))
    ]
    overview, section = report.task_sections(
        [*results, _result("s4", 0, {"32": 0.25, "128": 0.25}, steps=200)]
    )
    assert "Not run yet: selective-copying, induction, delay, parity." in overview
    assert "\n| mamba | 60.0 | " in overview
    assert "\n| s4 | 25.0 (1 of 3 seeds) | " in overview
    assert "\n| hyena |  | " in overview
    assert "| mamba | 60.0 (50.0 to 90.0) | 30.0 (25.0 to 45.0) | 101 | 3 |" in section
    assert "hyena" not in section


def _result(mixer: str, seed: int, accuracy: dict[str, float], *, steps: int) -> dict:
    return {
        "mixer": mixer,
        "task": "mqar",
        "seed": seed,
        "parameters": 90_000,
        "steps": steps,
        "accuracy": accuracy,
        "cpu_seconds": 1.0,
    }


def test_the_report_takes_the_rate_that_is_better_on_seed_0():
    found = {(0, 2e-3): 2.5, (0, 5e-3): 2.2, (1, 5e-3): 2.4, (2, 5e-3): 2.3}
    own = [_bits("mamba", seed, lr, value) for (seed, lr), value in found.items()]
    rival = [_bits("transformer", seed, 2e-3, 2.0) for seed in range(3)]
    _, table, other = report.bits_sections([*own, *rival, _bits("transformer", 0, 5e-3, 3.0)])
    assert "Not run yet" in other
    assert "| mamba | 98,304 | 10 | 0.000 | 0.005 | 2.300 (2.200 to 2.400) | +0.300 | 3 |" in table
    assert "| transformer | 98,304 | 10 | 0.000 | 0.002 | 2.000 (2.000 to 2.000) | +0.000 | 3 |" in table


def _bits(model: str, seed: int, lr: float, bits_per_byte: float) -> dict:
    return {
        "model": model,
        "corpus": "python-docs",
        "seed": seed,
        "lr": lr,
        "parameters": 98_304,
        "steps": 10,
        "training_flops": 1,
        "bits_per_byte": bits_per_byte,
        "cpu_seconds": 1.0,
    }


def test_the_page_on_choosing_names_layers_that_there_are_and_a_config_that_is_sound():
    page = (report.ROOT / "docs/how-to/choosing-a-layer.md").read_text()
    kernel = default_kernel()
    for name in re.findall(r"^\| `([a-z0-9-]+)`", page, re.MULTILINE):
        assert kernel.find("layer", name)
    config = tomllib.loads(re.search(r"```toml\n(.*?)```", page, re.DOTALL)[1])
    assert mixers.count(config["model"]) > 0
