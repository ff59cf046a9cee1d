"""Small random models of transformers, as folders on disk: what these tests compare with."""

from __future__ import annotations

import json
import os

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported, which reads it once

SIZES = {"vocab_size": 101, "num_hidden_layers": 2, "layer_norm_epsilon": 3e-5}
MAMBA = {"model_type": "mamba", "hidden_size": 48, "state_size": 5, "conv_kernel": 3}
FALCON = {**MAMBA, "model_type": "falcon_mamba", "mixer_rms_eps": 1e-2}
HEADS = {"expand": 2, "num_heads": 8, "head_dim": 12, "n_groups": 2, "chunk_size": 16}
MAMBA2 = {"model_type": "mamba2", "hidden_size": 48, "state_size": 6, "conv_kernel": 3, **HEADS}
VARIANTS = {
    "mamba": {**MAMBA, "tie_word_embeddings": True},
    "mamba-untied": {**MAMBA, "tie_word_embeddings": False, "time_step_rank": 7, "expand": 3},
    "mamba-biases": {**MAMBA, "use_bias": True, "use_conv_bias": False, "hidden_act": "swish"},
    "falcon": {**FALCON, "tie_word_embeddings": False},
    "mamba2": {**MAMBA2, "tie_word_embeddings": False},
    "mamba2-tied": {**MAMBA2, "tie_word_embeddings": True, "n_groups": 1, "norm_before_gate": True},
    "mamba2-biases": {**MAMBA2, "use_bias": True, "use_conv_bias": False, "n_groups": 4},
}


@pytest.fixture(scope="session")
def make_theirs():
    """Build a random model of transformers with the config given; no weight is a plain zero or one."""
    from transformers import AutoConfig, AutoModelForCausalLM

    def make(config, *, seed=0, dtype=torch.float32):
        names = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
        theirs = AutoModelForCausalLM.from_config(AutoConfig.for_model(**{**SIZES, **names, **config}))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in theirs.named_parameters():
                parameter.copy_(draw(name, parameter.shape, generator))
        return theirs.to(dtype).eval()

    return make


def draw(name, shape, generator):
    """Return random weights of a size that lets every part of the model be seen in its logits."""
    noise = torch.randn(shape, generator=generator)
    if name.endswith("A_log"):
        return 0.7 * noise
    if name.endswith(("dt_proj.bias", "dt_bias")):
        return noise - 1.5
    if name.endswith((".D", "norm.weight", "norm_f.weight")):
        return 1 + 0.4 * noise
    if name.endswith("bias"):
        return 0.4 * noise
    return noise * (0.3 if "embeddings" in name else 1.2 * shape[1:].numel() ** -0.5)


@pytest.fixture(scope="session")
def variants():
    """The configs to compare in."""
    return VARIANTS


@pytest.fixture(scope="session")
def imported(make_theirs, tmp_path_factory):
    """For a variant: their model, its folder, and the run that it was imported to; made once."""
    from helix_ssm.hf import import_hf

    made = {}

    def get(variant):
        if variant not in made:
            theirs = make_theirs(VARIANTS[variant])
            place = tmp_path_factory.mktemp(variant)
            theirs.save_pretrained(place / "theirs")
            import_hf(place / "theirs", place / "run")
            made[variant] = theirs, place / "theirs", place / "run"
        return made[variant]

    return get


@pytest.fixture
def folder(make_theirs, tmp_path):
    """A folder of a small model that a test may damage."""
    make_theirs(VARIANTS["mamba-untied"]).save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"


@pytest.fixture
def edit():
    """Change values of a folder's config.json; None takes a value out."""

    def change(folder, **values):
        path = folder / "config.json"
        config = json.loads(path.read_text()) | values
        path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))
        return folder

    return change
