"""Export goes back: every tensor to the bit, the config's meaning, and folders that transformers opens."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

import helix_kernel
from helix_kernel import checkpoint
from helix_kernel.config import resolve_document
from helix_kernel.errors import CheckpointError, IncompatibleCheckpointError
from helix_kernel.nesting import nest
from helix_ssm.hf import export_hf, import_hf

VARIANTS = (
    "mamba",
    "mamba-untied",
    "mamba-biases",
    "falcon",
    "mamba2",
    "mamba2-tied",
    "mamba2-biases",
)
MAMBA = {"use": "mamba", "d_state": 4}
MAMBA2 = {"use": "mamba2", "d_state": 4}
MODEL = {"use": "language-model", "d_model": 16, "n_layers": 2, "vocab_size": 64, "mixer": MAMBA}


def save_run(path, model, *, dtype=torch.float32, seed=0):
    """Save a random model as a run does; returns the model."""
    config = resolve_document({"model": model})
    torch.manual_seed(seed)
    built = config.kernel.build("layer", config["model"]).to(dtype).eval()
    attributes = {"config": config.to_dict(), "components": config.versions(), "step": 7}
    checkpoint.save(path, {"model": nest(built.state_dict()), "step": 7}, attributes=attributes)
    return built


def weights(folder):
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def assert_same_bits(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert found[name].shape == tensor.shape, name
        assert torch.equal(found[name].view(torch.uint8), tensor.view(torch.uint8)), name


def open_theirs(folder):
    """Open a folder by transformers, which must miss nothing and find nothing more."""
    from transformers import AutoModelForCausalLM

    model, told = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(told.values()), told
    return model.eval()


@pytest.mark.parametrize("variant", VARIANTS)
def test_there_and_back_keeps_every_tensor_and_file(variant, imported, tmp_path):
    theirs, folder, run = imported(variant)
    done = export_hf(run, tmp_path / "back")
    assert_same_bits(weights(tmp_path / "back"), weights(folder))
    assert done.model_type == theirs.config.model_type
    assert set(done.beside) == {"config.json", "generation_config.json"}
    for name in done.beside:
        assert (tmp_path / "back" / name).read_bytes() == (folder / name).read_bytes()
    ids = torch.arange(12).view(2, 6)
    assert torch.equal(open_theirs(tmp_path / "back")(ids).logits, theirs(ids).logits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_comes_back_to_the_bit(dtype, make_theirs, variants, tmp_path):
    theirs = make_theirs(variants["mamba"], dtype=dtype)
    theirs.save_pretrained(tmp_path / "theirs")
    done = import_hf(tmp_path / "theirs", tmp_path / "run")
    assert done.dtypes == (str(dtype).removeprefix("torch."),)
    export_hf(tmp_path / "run", tmp_path / "back")
    assert_same_bits(weights(tmp_path / "back"), weights(tmp_path / "theirs"))
    assert open_theirs(tmp_path / "back").dtype == dtype
    # A model is built in float32; its weights are the stored ones, every bit of them.
    ours = helix_kernel.load_model(tmp_path / "run")
    stored = weights(tmp_path / "theirs")["backbone.layers.1.mixer.in_proj.weight"]
    assert torch.equal(ours.blocks[1].mixer.in_proj.weight, stored.float())


def test_weights_of_several_types_keep_each_its_own(folder, tmp_path):
    from safetensors.torch import save_file

    mixed = {
        name: tensor.bfloat16() if name.endswith("proj.weight") else tensor
        for name, tensor in weights(folder).items()
    }
    save_file(mixed, folder / "model.safetensors", metadata={"format": "pt"})
    assert import_hf(folder, tmp_path / "run").dtypes == ("bfloat16", "float32")
    export_hf(tmp_path / "run", tmp_path / "back")
    assert_same_bits(weights(tmp_path / "back"), mixed)


def test_a_type_that_was_asked_for_is_the_type_of_all(folder, tmp_path):
    assert import_hf(folder, tmp_path / "run", dtype="bfloat16").dtypes == ("bfloat16",)
    export_hf(tmp_path / "run", tmp_path / "back")
    converted = {name: tensor.bfloat16() for name, tensor in weights(folder).items()}
    assert_same_bits(weights(tmp_path / "back"), converted)
    before, after = (json.loads((place / "config.json").read_text()) for place in (folder, tmp_path / "back"))
    assert after == before | {"dtype": "bfloat16"}


def test_large_weights_are_cut_into_files_with_an_index(imported, tmp_path):
    _, folder, run = imported("mamba-untied")
    done = export_hf(run, tmp_path / "back", shard_bytes=60_000)
    assert len(done.weights) > 2
    assert done.weights == tuple(sorted(file.name for file in (tmp_path / "back").glob("*.safetensors")))
    assert_same_bits(weights(tmp_path / "back"), weights(folder))
    for name in done.weights:
        held = load_file(tmp_path / "back" / name)
        assert len(held) == 1 or sum(tensor.nbytes for tensor in held.values()) <= 60_000
    assert_same_bits(dict(open_theirs(tmp_path / "back").state_dict()), weights(folder))


def test_cut_folders_are_read_too(make_theirs, variants, tmp_path):
    theirs = make_theirs(variants["mamba-untied"])
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="60kB")
    assert (tmp_path / "theirs/model.safetensors.index.json").is_file()
    import_hf(tmp_path / "theirs", tmp_path / "run")
    export_hf(tmp_path / "run", tmp_path / "back")
    assert_same_bits(weights(tmp_path / "back"), weights(tmp_path / "theirs"))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"tie_embeddings": False, "norm": {"use": "rms-norm", "eps": 1e-3}},
        {"mixer": {**MAMBA, "expand": 3, "dt_rank": 5, "bias": True, "conv_bias": False, "d_conv": 2}},
        {"mixer": {**MAMBA, "bcdt_rms_eps": 1e-3}},
        {"mixer": MAMBA2},
        {"mixer": {**MAMBA2, "head_dim": 2, "n_groups": 4}},
    ],
    ids=["defaults", "untied", "options", "falcon", "mamba2", "mamba2-groups"],
)
def test_a_model_made_by_helix_opens_in_transformers(change, tmp_path):
    ours = save_run(tmp_path / "step-00000007", {**MODEL, **change})
    done = export_hf(tmp_path, tmp_path / "out")
    theirs = open_theirs(tmp_path / "out")
    assert done.model_type == theirs.config.model_type
    ids = torch.randint(64, (2, 23))
    with torch.inference_mode():
        torch.testing.assert_close(theirs(ids).logits, ours(ids), rtol=1e-5, atol=1e-6)
        # No id of a byte model ends a text, so it writes as much as it is asked for.
        assert theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=30).shape == (2, 53)


def test_what_was_exported_comes_back_the_same_model(tmp_path):
    ours = save_run(tmp_path / "step-00000007", {**MODEL, "tie_embeddings": False}, dtype=torch.bfloat16)
    export_hf(tmp_path, tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "bfloat16"
    import_hf(tmp_path / "out", tmp_path / "run")
    again = helix_kernel.load_model(tmp_path / "run")
    assert_same_bits(dict(again.state_dict()), dict(ours.float().state_dict()))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"channel": {"use": "mlp"}}, "model.channel is .*; supported is none"),
        ({"mixer": {"use": "s4d"}}, "model.mixer.use is 'helix-ssm:s4d'; supported is helix-ssm:mamba or"),
        ({"norm": {"use": "linear"}}, "model.norm.use is 'helix-ssm:linear'; supported is 'helix-ssm:rms-"),
        ({"mixer": None, "pattern": [MAMBA, {"use": "s4d"}]}, "model.pattern is .*; supported is none"),
        ({"mixer": {**MAMBA2, "norm_eps": 0.1}}, "model.mixer.norm_eps is 0.1; .*, 1e-05"),
    ],
    ids=["channel", "mixer", "norm", "pattern", "norms"],
)
def test_what_transformers_has_no_model_for_is_refused(change, told, tmp_path):
    model = {key: value for key, value in {**MODEL, **change}.items() if value is not None}
    save_run(tmp_path / "step-00000007", model)
    with pytest.raises(IncompatibleCheckpointError, match=told):
        export_hf(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    save_run(tmp_path / "step-00000007", {"use": "mlp", "d_model": 8})
    with pytest.raises(IncompatibleCheckpointError, match=r"model\.use is 'helix-ssm:mlp'"):
        export_hf(tmp_path, tmp_path / "out")


def test_nothing_is_written_over(imported, tmp_path):
    _, _, run = imported("mamba")
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckpointError, match="exists"):
        export_hf(run, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_checkpoint_moved_away_from_its_files_says_which_it_lacks(imported, tmp_path):
    _, _, run = imported("mamba")
    shutil.copytree(run / "checkpoints/step-00000000", tmp_path / "step-00000000")
    done = export_hf(tmp_path / "step-00000000", tmp_path / "out")
    assert done.missing == (str(tmp_path.parent / "hf/generation_config.json"),)
    assert done.beside == ("config.json",)
