"""What several processes write is one ordinary checkpoint, whole or not there, which any number reads."""

from __future__ import annotations

import json
import math
import signal

import numpy as np
import pytest
import ranks
import torch
import zarr
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint import load as torch_load

from helix_kernel.checkpoint import Checkpoint, CheckpointManager, load, save, zarr_store
from helix_kernel.checkpoint.durable import hidden_sibling
from helix_kernel.cli.checkpoint import inspect
from helix_kernel.errors import CheckpointError
from helix_train.distributed_checkpoint import load_sharded


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def written(directory):
    """A checkpoint of four ranks, and what torch's own writer made of the same tensors."""
    path = directory / "step-00000001"
    assert ranks.run(directory, 4, ranks.write, path, directory / "by_torch", 64) == [None] * 4
    return path


def assert_tensors(found, expected):
    assert found.keys() == expected.keys()
    assert [name for name in expected if not ranks.same_bits(found[name], expected[name])] == []


def test_four_ranks_write_what_one_process_loads_to_the_bit(written):
    state = load(written, as_torch=True)
    assert_tensors(state["model"]["tensors"], ranks.tensors())
    assert state["run"].pop("last") != state["run"].get("last")
    assert state["run"] == {"step": 7, "lr": 0.1, "betas": (0.9, 0.999), "names": ["a", None]}
    assert state["only"]["one"].tolist() == [1.0, 1.0, 1.0]
    assert state["model"]["blocks.0.weight"] is state["model"]["tensors"]["rows"]


def test_torch_s_own_writer_agrees_on_every_bit(written, directory):
    found = {name: torch.full_like(tensor, 9) for name, tensor in ranks.tensors().items()}
    with pytest.warns(UserWarning, match="torch.distributed is disabled"):
        torch_load(found, storage_reader=FileSystemReader(directory / "by_torch"))
    assert_tensors(load(written, as_torch=True)["model"]["tensors"], found)


def test_each_rank_writes_its_own_shards_and_replicas_are_written_once(written):
    with Checkpoint.open(written) as checkpoint:
        checkpoint.verify()
        assert checkpoint.attributes == {"rank": 0}
        assert checkpoint.ties == {"model/blocks/0/weight": "model/tensors/rows"}
        arrays = checkpoint.manifest.arrays
        packs = {name: [extent.pack for extent in stored.extents] for name, stored in arrays.items()}
    own = [f"data-0000{rank}.bin" for rank in range(4)]
    assert packs["model/tensors/rows"] == packs["model/tensors/columns"] == own
    assert packs["model/tensors/few"] == own[:3]
    assert packs["model/tensors/grid"] == own
    assert len(packs["model/tensors/hybrid"]) == 2, "each half is held by two ranks"
    assert len(packs["model/tensors/twice"]) == 10, "3, 2, 3 and 2 rows have only 1 as a common length"
    assert [len(packs[f"model/tensors/{name}"]) for name in ("replicated", "plain", "scalar", "empty")] == [
        1,
        1,
        1,
        0,
    ]
    assert arrays["model/tensors/grid"].layout.shard_shape == (5, 4)
    assert arrays["model/tensors/cube"].layout.chunk_shape is not None, "some shards have inner chunks"
    assert sorted(file.name for file in written.iterdir()) == [*own, "manifest.json"]


def test_zarr_reads_what_four_ranks_wrote(written):
    group = zarr.open(zarr_store(written), mode="r")
    for name, tensor in ranks.tensors().items():
        found = group[f"model/tensors/{name}"][...]
        assert (
            np.asarray(found).tobytes() == tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        )


def test_inspect_shows_it_like_any_other(written, capsys):
    inspect(str(written), json=True)
    shown = json.loads(capsys.readouterr().out)
    assert "model/tensors/columns" in json.dumps(shown)


@pytest.mark.parametrize(("world", "other"), [(1, False), (2, True), (3, False), (3, True), (4, True)])
def test_any_number_of_ranks_reads_its_shards_to_the_bit(written, directory, world, other):
    outcomes = ranks.run(directory, world, ranks.read, written, other)
    for wrong, run, was in outcomes:
        assert wrong == []
        assert (run["step"], run["betas"], math.isnan(run["last"]), was) == (7, (0.9, 0.999), True, 4)


def test_what_one_process_saved_is_read_into_shards(tmp_path, directory):
    save(tmp_path / "step", ranks.written_by(ranks.tensors(), 4))
    assert [wrong for wrong, _, _ in ranks.run(directory, 3, ranks.read, tmp_path / "step", True)] == [[]] * 3


def test_ranks_agree_on_what_is_compressed_and_anyone_reads_it(directory, tmp_path):
    path = tmp_path / "step"
    assert ranks.run(directory, 4, ranks.write_compressed, path) == [None] * 4
    expected = ranks.compressible()
    expected["whole"] = expected["weights"]
    assert_tensors(load(path, as_torch=True)["tensors"], expected)
    group = zarr.open(zarr_store(path), mode="r")
    with Checkpoint.open(path) as checkpoint:
        checkpoint.verify()
        names = {name.removeprefix("tensors/"): info for name, info in checkpoint.arrays.items()}
        assert len(checkpoint.manifest.arrays["tensors/weights"].extents) == 4
        np.testing.assert_array_equal(
            checkpoint["tensors/weights"][249:503, 7], expected["weights"][249:503, 7]
        )
    assert {name for name, info in names.items() if info.compression} == {
        "zeros",
        "mostly",
        "weights",
        "whole",
    }
    assert all(np.array_equal(group[f"tensors/{name}"][...], expected[name]) for name in expected)
    sizes = {file.name: file.stat().st_size for file in path.glob("*.bin")}
    with Checkpoint.open(path) as checkpoint:
        assert sizes == checkpoint.manifest.packs
    state = {"tensors": {name: torch.zeros_like(tensor) for name, tensor in expected.items()}, "step": 0}
    load_sharded(path, state)
    assert_tensors(state["tensors"], expected)


def test_torch_s_async_save_writes_what_was_there_when_it_was_called(directory):
    assert ranks.run(directory, 4, ranks.write_in_background, directory / "async") == [None] * 4
    state = load(directory / "async", as_torch=True)
    assert state["step"] == 7
    assert_tensors(state["tensors"], ranks.tensors())


def test_a_model_of_fsdp_and_its_optimizer_go_on_as_if_never_stopped(directory):
    path = directory / "model"
    (saved, later), *_ = ranks.run(directory, 4, ranks.save_model, path)
    (loaded, gone_on, lr), *_ = ranks.run(directory, 4, ranks.load_model, path)
    assert_tensors(loaded, saved)
    assert_tensors(gone_on, later)
    assert lr == 0.01
    (loaded, _, _), *_ = ranks.run(directory, 3, ranks.load_model, path)
    assert_tensors(loaded, saved)
    state = load(path, as_torch=True)
    assert_tensors(
        {f"model.{name}": tensor for name, tensor in state["model"].items()},
        {name: tensor for name, tensor in saved.items() if name.startswith("model.")},
    )


@pytest.mark.parametrize("dying", [0, 2])
def test_a_rank_killed_in_the_middle_leaves_nothing_to_be_seen(directory, tmp_path, dying):
    CheckpointManager(tmp_path, keep=None).save(1, {"x": 1})
    path = tmp_path / "step-00000002"
    outcomes = ranks.run(directory, 4, ranks.save_until, path, dying)
    assert outcomes.pop(dying) == -signal.SIGKILL
    assert all("CheckpointError: cannot write checkpoint" in outcome for outcome in outcomes)
    assert all("a rank was lost" in outcome for outcome in outcomes)
    assert not path.exists()
    assert CheckpointManager(tmp_path).steps() == [1]
    left = [
        entry.name for entry in tmp_path.iterdir() if entry.name.startswith(hidden_sibling(path).name[:11])
    ]
    assert len(left) == (1 if dying == 0 else 0), "only of rank 0, which would have removed it"
    assert ranks.run(directory, 2, ranks.save_until, path, None) == [None] * 2
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        ".writer.lock",
        "step-00000001",
        "step-00000002",
    ]


def test_what_goes_wrong_on_one_rank_is_one_error_on_all_and_leaves_nothing(directory, tmp_path):
    save(tmp_path / "good", {"rows": np.zeros((10, 3))})
    outcomes = ranks.run(directory, 4, ranks.fail, tmp_path / "step", tmp_path / "good")
    assert all(outcome == outcomes[0] for outcome in outcomes)
    told = outcomes[0]
    assert told["full disk"].startswith("CheckpointError: rank 2: cannot write data-00002.bin of checkpoint")
    assert "No space left on device" in told["full disk"]
    assert "data-00002.bin of checkpoint" in told["not shared"]
    assert told["not shared"].endswith("the path must lie on a file system that all ranks share")
    assert "state 'run/loss' is 0 on rank 0 and 1 on rank 3; what differs" in told["value"]
    assert told["kind"].startswith("ArgumentError: rank 3: state 'run/at' is a builtins.object")
    assert "state 'plain' is float32 (2,) on rank 0 and float32 (3,) on rank 1" in told["shape"]
    assert "rows: float64 (10, 3) in the checkpoint, float32 (10, 4) in the state" in told["misfit"]
    assert told["missing"].startswith("CheckpointError: rank 0: ")
    assert "good-nowhere does not exist" in told["missing"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["good"]


def test_a_damaged_byte_is_found_and_its_array_named(written, directory, tmp_path):
    with Checkpoint.open(written) as checkpoint:
        hurt = checkpoint.manifest.arrays["model/tensors/grid"].extents[2]
    pack = written / hurt.pack
    content = pack.read_bytes()
    pack.write_bytes(
        content[: hurt.offset + 5] + bytes([content[hurt.offset + 5] ^ 1]) + content[hurt.offset + 6 :]
    )
    try:
        with pytest.raises(CheckpointError, match="array 'model/tensors/grid'"):
            Checkpoint.open(written).verify()
        outcomes = ranks.run(directory, 4, ranks.load_damaged, written)
    finally:
        pack.write_bytes(content)
    expected = f"CheckpointError: rank 2: {written} is damaged: bytes"
    assert all(outcome.startswith(expected) for outcome in outcomes)
    assert all("part of array 'model/tensors/grid', were changed" in outcome for outcome in outcomes)
