"""Checkpoints of the first form, one file a chunk, still open. `data/first-form` was written by 0.1.0."""

import math
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from helix_kernel.checkpoint import Checkpoint, load, resolve, save
from helix_kernel.errors import CheckpointError

OLD = Path(__file__).parent / "data/first-form"


def test_everything_is_read_as_it_was_saved():
    state = load(OLD)
    weight = np.arange(60, dtype=np.float32).reshape(3, 20)
    assert state["model"].keys() == {"a.w", "tied", "b", "empty", "n", "wide"}
    np.testing.assert_array_equal(state["model"]["a.w"], weight, strict=True)
    assert state["model"]["tied"] is state["model"]["a.w"]
    np.testing.assert_array_equal(state["model"]["b"], np.arange(4).astype(ml_dtypes.bfloat16), strict=True)
    np.testing.assert_array_equal(state["model"]["wide"], np.arange(220.0).reshape(2, 110), strict=True)
    assert state["model"]["empty"].shape == (0, 3)
    assert state["model"]["n"] == 7
    assert state["step"] == 4
    assert isinstance(state["rng"], tuple)
    assert math.isnan(state["rng"][1])


def test_it_verifies_slices_and_resolves():
    with Checkpoint.open(resolve(OLD)) as checkpoint:
        assert checkpoint.attributes == {"step": 4, "betas": (0.9, 0.95)}
        assert checkpoint["model/wide"][1, 50] == 160
        checkpoint.verify()


def test_saved_anew_it_is_of_the_present_form(tmp_path):
    save(tmp_path / "new", load(OLD))
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"manifest.json", "data-00000.bin"}
    with Checkpoint.open(tmp_path / "new") as new, Checkpoint.open(OLD) as old:
        assert all(new.sha256(name) == old.sha256(name) for name in old.arrays)


@pytest.mark.parametrize(
    "name", [path.relative_to(OLD).as_posix() for path in OLD.rglob("*") if path.is_file()]
)
def test_every_file_is_checked(tmp_path, name):
    copy = shutil.copytree(OLD, tmp_path / "copy")
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 4
    (copy / name).write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        Checkpoint.open(copy)
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=r"missing|has no manifest"):
        Checkpoint.open(copy)
