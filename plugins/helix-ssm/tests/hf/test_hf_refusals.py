"""Folders that do not fit, or are damaged, are refused in one sentence, and leave nothing behind."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from helix_kernel.errors import (
    ArgumentError,
    CheckpointError,
    DependencyError,
    IncompatibleCheckpointError,
)
from helix_ssm.hf import import_hf
from helix_ssm.hf.folder import Folder


@pytest.fixture
def refused(tmp_path):
    """Import a folder that must be refused; returns what was said."""

    def run(folder, error, **options):
        before = sorted(tmp_path.iterdir())
        with pytest.raises(error) as caught:
            import_hf(folder, tmp_path / "run", **options)
        assert sorted(tmp_path.iterdir()) == before
        return str(caught.value)

    return run


@pytest.fixture
def rewrite(folder):
    """Change the folder's tensors by a function from and to a dictionary."""

    def run(change):
        path = folder / "model.safetensors"
        save_file(change(load_file(path)), path, metadata={"format": "pt"})

    return run


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"model_type": "llama"}, "model_type is 'llama'; supported is mamba"),
        ({"model_type": "mambo"}, "Did you mean 'mamba'?"),
        (
            {"architectures": ["MambaModel"]},
            "architectures is ['MambaModel']; supported is ['MambaForCausalLM']",
        ),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; supported is 'silu' or 'swish'"),
        ({"rms_norm": False}, "rms_norm is False; supported is True"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is {'bits': 4}"),
        ({"hidden_size": 0}, "hidden_size is 0; supported is a whole number >= 1"),
        ({"state_size": "16"}, "state_size is '16'; supported is a whole number >= 1"),
        ({"use_bias": 1}, "use_bias is 1; supported is true or false"),
        ({"layer_norm_epsilon": 0.0}, "layer_norm_epsilon is 0.0; supported is a number > 0"),
        ({"time_step_rank": 0}, 'time_step_rank is 0; supported is "auto" or a whole number >= 1'),
        ({"intermediate_size": 100}, "intermediate_size is 100; supported is a multiple of hidden_size"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_configs_that_do_not_fit_name_the_field(values, told, folder, edit, refused):
    message = refused(edit(folder, **values), IncompatibleCheckpointError)
    assert told in message
    assert message.startswith(f"{folder}: ")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"num_heads": 5}, "num_heads is 5; supported is expand * hidden_size / head_dim, which is 8"),
        ({"head_dim": 7}, "head_dim is 7; supported is a divisor of expand * hidden_size"),
        ({"n_groups": 3}, "n_groups is 3; supported is a divisor of num_heads, which is 8"),
        ({"time_step_limit": [0.5, 0.1]}, "time_step_limit is (0.5, 0.1); supported is two numbers"),
        ({"time_step_limit": 3}, "time_step_limit is 3; supported is two numbers"),
    ],
    ids=["num_heads", "head_dim", "n_groups", "backwards", "one"],
)
def test_heads_that_do_not_fit_name_the_field(values, told, make_theirs, variants, tmp_path, edit, refused):
    make_theirs(variants["mamba2"]).save_pretrained(tmp_path / "second")
    assert told in refused(edit(tmp_path / "second", **values), IncompatibleCheckpointError)


def test_a_name_on_a_hub_is_no_folder(refused, tmp_path):
    message = refused(tmp_path / "state-spaces/mamba-130m-hf", CheckpointError)
    assert "does not exist" in message
    assert "Nothing is downloaded" in message


def test_a_file_is_no_folder(folder, refused):
    assert "is a file" in refused(folder / "config.json", CheckpointError)


def test_a_folder_without_config(folder, refused):
    (folder / "config.json").unlink()
    assert "has no config.json" in refused(folder, CheckpointError)


@pytest.mark.parametrize(("text", "told"), [("{", "is not JSON"), ("[1]", "holds a list")])
def test_a_config_that_is_none(text, told, folder, refused):
    (folder / "config.json").write_text(text)
    assert told in refused(folder, CheckpointError)


def test_a_pickle_is_not_opened(folder, refused):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    message = refused(folder, IncompatibleCheckpointError)
    assert "pytorch_model.bin, a pickle, which can run any code" in message
    assert "save_pretrained" in message


def test_no_weights_at_all(folder, refused):
    (folder / "model.safetensors").unlink()
    assert "has no weights: neither model.safetensors nor" in refused(folder, CheckpointError)


def test_a_file_cut_short(folder, refused):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "is damaged: model.safetensors:" in refused(folder, CheckpointError)


def test_tensors_that_are_missing_left_over_or_of_another_shape(rewrite, folder, refused):
    def change(tensors):
        del tensors["backbone.layers.1.mixer.D"]
        tensors["backbone.layers.1.mixer.E"] = torch.ones(3)
        tensors["backbone.norm_f.weight"] = torch.ones(7)
        return tensors

    rewrite(change)
    message = refused(folder, IncompatibleCheckpointError)
    assert "missing: backbone.layers.1.mixer.D (144,)" in message
    assert "left over: backbone.layers.1.mixer.E (3,)" in message
    assert "backbone.norm_f.weight: (7,) in the weights, (48,) by the config" in message


def test_many_tensors_that_do_not_fit_are_counted(folder, edit, refused):
    message = refused(edit(folder, num_hidden_layers=1), IncompatibleCheckpointError)
    assert message.count("left over: ") == 8
    assert "and 2 more" in message


@pytest.mark.parametrize("dtype", [torch.float64, torch.int8])
def test_weights_of_a_type_that_no_model_has(dtype, rewrite, folder, refused):
    rewrite(lambda tensors: tensors | {"backbone.norm_f.weight": torch.ones(48, dtype=dtype)})
    message = refused(folder, IncompatibleCheckpointError)
    assert f"backbone.norm_f.weight is {str(dtype).removeprefix('torch.')}; supported is float32" in message


def test_a_head_that_is_tied_and_stored(make_theirs, variants, folder, edit, rewrite, refused, tmp_path):
    edit(folder, tie_word_embeddings=True)
    assert "lm_head.weight is another matrix" in refused(folder, IncompatibleCheckpointError)
    rewrite(lambda tensors: tensors | {"lm_head.weight": tensors["backbone.embeddings.weight"].clone()})
    import_hf(folder, tmp_path / "run")


def test_a_missing_head(rewrite, folder, refused):
    rewrite(lambda tensors: {name: value for name, value in tensors.items() if name != "lm_head.weight"})
    assert "missing: lm_head.weight (101, 48)" in refused(folder, IncompatibleCheckpointError)


@pytest.fixture
def cut(make_theirs, variants, tmp_path):
    """A folder whose weights are several files; returns it and its index."""
    folder = tmp_path / "cut"
    make_theirs(variants["mamba-untied"]).save_pretrained(folder, max_shard_size="60kB")
    return folder, json.loads((folder / "model.safetensors.index.json").read_text())


def test_a_missing_file_of_several(cut, refused):
    folder, index = cut
    lost = sorted(set(index["weight_map"].values()))[1]
    (folder / lost).unlink()
    assert f"{lost}, named by model.safetensors.index.json, is missing" in refused(folder, CheckpointError)


def test_an_index_that_places_a_tensor_wrongly(cut, refused):
    folder, index = cut
    name, file = next(iter(index["weight_map"].items()))
    index["weight_map"][name] = next(other for other in index["weight_map"].values() if other != file)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert f"lacks {name}, which" in refused(folder, CheckpointError)


@pytest.mark.parametrize("weight_map", [None, {"a": 3}, {"a": "../elsewhere.safetensors"}])
def test_an_index_without_a_map_to_files_of_the_folder(weight_map, cut, refused):
    folder, _ = cut
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert "has no weight_map from tensors to files of this folder" in refused(folder, CheckpointError)


def test_a_dtype_that_there_is_not(folder, refused):
    message = refused(folder, ArgumentError, dtype="bfloat")
    assert "allowed is one of float32, float16, bfloat16. Did you mean 'bfloat16'?" in message


def test_a_run_is_never_written_over(folder, tmp_path):
    import_hf(folder, tmp_path / "run")
    before = sorted(path for path in (tmp_path / "run").rglob("*"))
    with pytest.raises(CheckpointError, match="exists"):
        import_hf(folder, tmp_path / "run")
    assert sorted(path for path in (tmp_path / "run").rglob("*")) == before


def test_without_safetensors_the_command_that_installs_it_is_named(folder, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    assert "pip install 'helix-ssm[hf]'" in refused(folder, DependencyError)


def test_a_disk_that_fills_up_leaves_nothing(folder, refused, monkeypatch):
    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("helix_kernel.checkpoint.directory.write_file", full)
    assert "No space left on device" in refused(folder, CheckpointError)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what is mapped where")
def test_tensors_are_maps_of_their_file_and_take_no_memory_of_their_own(folder):
    tensors = Folder.open(folder).tensors()
    lines = Path("/proc/self/maps").read_text().splitlines()
    spans = [line.split()[0].split("-") for line in lines if line.endswith(str(folder / "model.safetensors"))]
    for name, tensor in tensors.items():
        assert any(int(low, 16) <= tensor.data_ptr() < int(high, 16) for low, high in spans), name
