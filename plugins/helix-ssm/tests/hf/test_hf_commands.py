"""`helix import hf` and `helix export hf`, beside the commands that open what they make."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file

from helix_kernel.cli import main


@pytest.fixture
def helix(capsys, tmp_path, monkeypatch):
    """Run the command; returns its exit code, standard output and error."""
    monkeypatch.setenv("HELIX_CACHE_DIR", str(tmp_path / "cache"))

    def run(*arguments):
        capsys.readouterr()  # what transformers said when it saved
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return ended.value.code, *capsys.readouterr()

    return run


def test_there_and_back(helix, folder, tmp_path):
    code, out, err = helix("import", "hf", folder, "--out", tmp_path / "run", "--json")
    assert code == 0, err
    told = json.loads(out)
    n_parameters = sum(tensor.numel() for tensor in load_file(folder / "model.safetensors").values())
    assert told == {
        "checkpoint": str(tmp_path / "run/checkpoints/step-00000000"),
        "model_type": "mamba",
        "parameters": n_parameters,
        "dtypes": ["float32"],
        "tokenizer": None,
    }
    code, out, err = helix("export", "hf", tmp_path / "run", "--out", tmp_path / "back", "--json")
    assert code == 0, err
    assert json.loads(out) == {
        "directory": str(tmp_path / "back"),
        "model_type": "mamba",
        "weights": ["model.safetensors"],
        "beside": ["config.json", "generation_config.json"],
        "missing": [],
    }


def test_what_was_imported_can_be_looked_into(helix, folder, tmp_path):
    code, out, _ = helix("import", "hf", folder, "--out", tmp_path / "run")
    assert code == 0
    assert "model type  mamba" in out
    code, out, err = helix("checkpoint", "inspect", tmp_path / "run", "--json")
    assert code == 0, err
    told = json.loads(out)
    arrays = {array["name"]: array["shape"] for array in told["arrays"]}
    assert arrays["model/blocks/1/mixer/A_log"] == [144, 5]
    assert told["attributes"]["hf"]["config"] == (folder / "config.json").read_text()
    code, out, err = helix("config", "check", tmp_path / "run/config.toml")
    assert code == 0, err


def test_generate_goes_on_from_it(helix, folder, tmp_path):
    # Its 101 ids are bytes to a model without a tokenizer, so the prompt must be of low ones.
    helix("import", "hf", folder, "--out", tmp_path / "run")
    code, out, err = helix("generate", tmp_path / "run", "--prompt", "ABBA", "--n-bytes", "5", "--json")
    assert code == 0, err
    assert len(json.loads(out)["text"]) == 5


def test_errors_are_told_in_one_line(helix, folder, tmp_path):
    code, _, err = helix("import", "hg", folder, "--out", tmp_path / "run")
    assert (code, err.startswith("error: format is 'hg', allowed is hf")) == (2, True)
    code, _, err = helix("export", "hf", tmp_path / "none", "--out", tmp_path / "back")
    assert (code, err.count("\n")) == (2, 1)
    assert "does not exist" in err
