"""What `helix checkpoint inspect` prints."""

import json
import subprocess
import sys

import numpy as np
import pytest

from helix_kernel.checkpoint import Checkpoint, CheckpointManager
from helix_kernel.cli.checkpoint import inspect
from helix_kernel.errors import CheckpointError


@pytest.fixture
def run(tmp_path):
    weight = np.arange(2048.0, dtype=np.float32).reshape(2, 1024)
    manager = CheckpointManager(tmp_path / "checkpoints")
    state = {"model": {"embedding.weight": weight, "head.weight": weight, "a": np.int64(3)}}
    manager.save(
        12, state, attributes={"step": 12, "components": {"helix-ssm:mamba": "0.1.0"}, "loss": float("inf")}
    )
    return tmp_path


def test_json_lists_each_array_by_name_with_its_digest(run, capsys):
    inspect(str(run), json=True)
    printed = json.loads(capsys.readouterr().out)
    checkpoint = Checkpoint.open(run / "checkpoints/step-00000012")
    assert printed["path"] == str(checkpoint.path)
    assert printed["attributes"]["step"] == 12
    assert printed["ties"] == {"model/head/weight": "model/embedding/weight"}
    assert [array["name"] for array in printed["arrays"]] == ["model/a", "model/embedding/weight"]
    assert printed["arrays"][1] == {
        "name": "model/embedding/weight",
        "shape": [2, 1024],
        "dtype": "float32",
        "bytes": 8192,
        "stored_bytes": 8196,
        "compression": None,
        "digest": checkpoint.digest("model/embedding/weight"),
        "sha256": checkpoint.sha256("model/embedding/weight"),
    }


def test_the_digest_is_that_of_the_bytes(run):
    import hashlib

    weight = np.arange(2048.0, dtype="<f4")
    checkpoint = Checkpoint.open(run / "checkpoints/step-00000012")
    assert checkpoint.sha256("model/embedding/weight") == hashlib.sha256(weight.tobytes()).hexdigest()


def test_the_tree_is_for_reading(run, capsys):
    inspect(str(run))
    printed = capsys.readouterr().out
    assert "step-00000012: 2 arrays, 8.0 KiB" in printed
    assert "step 12" in printed
    assert "helix-ssm:mamba  0.1.0" in printed
    assert "model/\n  a" in printed
    assert "    weight    (2, 1024)  float32  8.0 KiB" in printed
    assert "is model/embedding/weight" in printed


def test_damage_is_an_error(run):
    (run / "checkpoints/step-00000012/data-00000.bin").unlink()
    with pytest.raises(CheckpointError, match="part of array 'model/embedding/weight', is missing"):
        inspect(str(run))


@pytest.mark.parametrize("absent", ["torch", "zarr", "rich"])
def test_looking_at_a_checkpoint_imports_nothing_heavy(run, absent):
    code = f"""
import sys
from helix_kernel.cli.checkpoint import inspect
inspect({str(run)!r})
assert {absent!r} not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
