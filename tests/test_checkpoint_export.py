"""Checkpoints in the forms that other tools read, and made from them."""

import json
import shutil
import struct
import tracemalloc
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
import zarr
from hypothesis import given
from hypothesis import strategies as st

from helix_kernel.checkpoint import Checkpoint, load, safetensors_file, save
from helix_kernel.checkpoint.checkpoint_store import register_dtypes
from helix_kernel.checkpoint.convert import convert
from helix_kernel.checkpoint.dtypes import DTYPES
from helix_kernel.checkpoint.export import dotted, export
from helix_kernel.errors import ArgumentError, CheckpointError, UnknownNameError

safetensors = pytest.importorskip("safetensors")
safetensors_torch = pytest.importorskip("safetensors.torch")

OLD = Path(__file__).parent / "data/first-form"
SAFE = sorted(safetensors_file.TYPES)
LARGE = np.arange(1_400_000, dtype=np.float64).reshape(1400, 1000)
WEIGHT = torch.arange(6.0).reshape(2, 3)
STATE = {
    "model": {
        "blocks.0.weight": WEIGHT,
        "head.weight": WEIGHT,
        "half": torch.tensor([1.5, -0.0], dtype=torch.bfloat16),
    },
    "optimizer": {"large": LARGE, "empty": np.zeros((0, 3)), "n": np.int64(7)},
    "odd/key": {"": np.ones(1, np.uint8), 3: np.zeros(2, np.bool_)},
    "position": (1, [2.5, float("inf")], None),
}
ATTRIBUTES = {"step": 3, "config": {"model": {"d": 8}}, "betas": (0.9, 0.95), "loss": float("nan")}


@pytest.fixture
def step(tmp_path):
    save(tmp_path / "step", STATE, attributes=ATTRIBUTES)
    return tmp_path / "step"


@pytest.fixture
def exported(step, tmp_path):
    def make(name, **options):
        with Checkpoint.open(step) as checkpoint:
            return export(checkpoint, tmp_path / name, **options).path

    return make


def digests(path):
    with Checkpoint.open(path) as checkpoint:
        return {name: checkpoint.digest(name) for name in checkpoint.arrays}


def flip(path, offset):
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(bytes(content))


def test_a_safetensors_file_loads_in_torch_under_torchs_names(exported):
    found = safetensors_torch.load_file(exported("x.safetensors"))
    assert found.keys() == {
        *("model.blocks.0.weight", "model.half", "optimizer.large", "optimizer.empty", "optimizer.n"),
        *("odd/key.", "odd/key.3"),
    }
    assert torch.equal(found["model.blocks.0.weight"], WEIGHT)
    assert torch.equal(found["model.half"].view(torch.int16), STATE["model"]["half"].view(torch.int16))
    assert torch.equal(found["optimizer.large"], torch.from_numpy(LARGE))
    assert found["optimizer.empty"].shape == (0, 3)
    assert found["optimizer.n"].item() == 7


def test_a_part_is_named_from_there_on_and_loads_into_its_module(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    save(tmp_path / "step", {"model": module.state_dict(), "step": 3})
    with Checkpoint.open(tmp_path / "step") as checkpoint:
        out = export(checkpoint, tmp_path / "x.safetensors", only="model").path
    other = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    other.load_state_dict(safetensors_torch.load_file(out))
    assert all(torch.equal(module.state_dict()[name], value) for name, value in other.state_dict().items())


def test_the_metadata_of_a_safetensors_file_hold_the_attributes_and_ties(exported):
    with safetensors.safe_open(exported("x.safetensors"), "np") as file:
        metadata = file.metadata()
    document = json.loads(metadata["helix"])
    assert metadata["format"] == "pt"
    assert document["attributes"]["config"] == {"model": {"d": 8}}
    assert document["ties"] == {"model/head/weight": "model/blocks/0/weight"}


@pytest.mark.parametrize("name", SAFE)
def test_each_type_is_what_the_library_writes_and_reads(tmp_path, name):
    array = np.arange(10).astype(DTYPES[name]).reshape(2, 5)
    save(tmp_path / "step", {"x": array})
    with Checkpoint.open(tmp_path / "step") as checkpoint:
        export(checkpoint, tmp_path / "x.safetensors")
    found = safetensors_torch.load_file(tmp_path / "x.safetensors")["x"]
    assert str(found.dtype) == f"torch.{name}"
    raw = found.view(torch.uint8) if found.dtype != torch.bool else found
    assert raw.numpy().tobytes() == array.tobytes()
    safetensors_torch.save_file({"x": found}, tmp_path / "theirs.safetensors")
    tensors, _ = safetensors_file.read(tmp_path / "theirs.safetensors")
    assert tensors["x"].dtype == array.dtype
    assert tensors["x"].tobytes() == array.tobytes()


@pytest.mark.parametrize("name", sorted(DTYPES.keys() - set(SAFE)))
def test_types_that_safetensors_lacks_are_refused_by_name_and_nothing_is_left(tmp_path, name):
    save(tmp_path / "step", {"m": {"x": np.ones(2).astype(DTYPES[name])}})
    with Checkpoint.open(tmp_path / "step") as checkpoint:
        with pytest.raises(ArgumentError, match=rf"no type for 'm/x' \({name}\).*--only, or .*--format zarr"):
            export(checkpoint, tmp_path / "x.safetensors")
        export(checkpoint, tmp_path / "x.zarr")
    assert {path.name for path in tmp_path.iterdir()} == {"step", "x.zarr"}


def opened(path):
    register_dtypes()
    return zarr.open(zarr.storage.ZipStore(path) if path.suffix == ".zip" else path, mode="r")


@pytest.mark.parametrize("name", ["x.zarr", "x.zip"])
def test_zarr_opens_a_directory_and_a_zip_file(exported, name):
    found = opened(exported(name))
    assert found["model/blocks/0/weight"][:].tolist() == WEIGHT.tolist()
    assert np.array_equal(found["optimizer/large"][:], LARGE)
    assert found["optimizer/large"][1399, 5:7].tolist() == [1_399_005, 1_399_006]
    assert found["model/half"][:].astype(float).tolist() == [1.5, 0]
    assert found["optimizer/n"][()] == 7
    assert found["optimizer/empty"].shape == (0, 3)
    assert found.attrs["helix"]["attributes"]["step"] == 3
    assert sorted(path for path, node in found.members(max_depth=None) if isinstance(node, zarr.Array)) == [
        *("model/blocks/0/weight", "model/half", "odd%2Fkey/%", "odd%2Fkey/3"),
        *("optimizer/empty", "optimizer/large", "optimizer/n"),
    ]


def test_tensorstore_reads_a_zarr_directory(exported):
    tensorstore = pytest.importorskip("tensorstore")
    store = {"driver": "file", "path": str(exported("x.zarr") / "optimizer/large")}
    found = tensorstore.open({"driver": "zarr3", "kvstore": store}).result()
    assert np.array_equal(found[1000:1002].read().result(), LARGE[1000:1002])


def test_each_entry_of_a_zip_file_lies_stored_and_aligned(exported):
    path = exported("x.zip")
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        entries = archive.infolist()
    content = path.read_bytes()
    for entry in entries:
        name, extra = struct.unpack_from("<HH", content, entry.header_offset + 26)
        assert (entry.header_offset + 30 + name + extra) % 64 == 0, entry.filename
        assert entry.compress_type == zipfile.ZIP_STORED


@pytest.mark.parametrize("name", ["x.safetensors", "x.zip"])
def test_equal_checkpoints_give_equal_files(exported, name):
    assert exported(name).read_bytes() == exported(f"again-{name}").read_bytes()


@pytest.mark.parametrize("name", ["x.safetensors", "x.zarr", "x.zip"])
def test_what_was_exported_comes_back_as_it_was(step, exported, tmp_path, name):
    convert(exported(name), tmp_path / "back")
    assert digests(tmp_path / "back") == digests(step)
    with Checkpoint.open(tmp_path / "back") as back, Checkpoint.open(step) as original:
        assert back.ties == original.ties == {"model/head/weight": "model/blocks/0/weight"}
        assert back.manifest.state == original.manifest.state
        assert back.manifest.attributes == original.manifest.attributes


@pytest.mark.parametrize("name", ["x.safetensors", "x.zarr", "x.zip"])
def test_a_part_comes_back_nested_from_there_on(exported, tmp_path, name):
    convert(exported(name, only="model/blocks"), tmp_path / "back")
    assert load(tmp_path / "back")["0"]["weight"].tolist() == WEIGHT.tolist()
    convert(exported(f"odd-{name}", only="odd%2Fkey"), tmp_path / "odd")
    assert load(tmp_path / "odd").keys() == {"", "3"}


@pytest.mark.parametrize("only", ["model/half", "model/head/weight"])
def test_one_array_alone_is_named_by_its_last_part(exported, only):
    found = safetensors_torch.load_file(exported("x.safetensors", only=only))
    assert list(found) == [only.rpartition("/")[2]]


def test_nothing_at_a_path_is_an_error_with_the_nearest(exported):
    with pytest.raises(UnknownNameError, match=r"no array at 'modle'\. Did you mean 'model'\?"):
        exported("x.safetensors", only="modle")


def test_the_first_form_is_exported_and_converted(tmp_path):
    with Checkpoint.open(OLD) as checkpoint:
        for name in ("old.safetensors", "old.zarr", "old.zip"):
            export(checkpoint, tmp_path / name)
            convert(tmp_path / name, tmp_path / f"from-{name}")
    convert(OLD, tmp_path / "from-first")
    with Checkpoint.open(OLD) as old:
        wanted = {name: old.sha256(name) for name in old.arrays}
        for path in tmp_path.glob("from-*"):
            with Checkpoint.open(path) as new:
                assert {name: new.sha256(name) for name in new.arrays} == wanted
                assert (new.attributes, new.ties) == (old.attributes, old.ties)


def test_a_safetensors_file_of_others_keeps_its_names_and_metadata(tmp_path):
    tensors = {"a.b": torch.ones(2), "c": torch.zeros(3, dtype=torch.bfloat16)}
    safetensors_torch.save_file(
        tensors, tmp_path / "x.safetensors", metadata={"helix": "no JSON", "by": "me"}
    )
    convert(tmp_path / "x.safetensors", tmp_path / "step")
    found = load(tmp_path / "step", as_torch=True)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    with Checkpoint.open(tmp_path / "step") as checkpoint:
        assert checkpoint.attributes == {"metadata": {"helix": "no JSON", "by": "me"}}


@pytest.mark.parametrize(("version", "name"), [(2, "x.zarr"), (3, "x.zarr"), (3, "x.zip")])
def test_a_zarr_hierarchy_of_others_becomes_nested(tmp_path, version, name):
    path = tmp_path / name
    store = zarr.storage.ZipStore(path, mode="w") if path.suffix == ".zip" else path
    root = zarr.open_group(store, mode="w", zarr_format=version, attributes={"by": "me"})
    data = np.arange(24.0).reshape(4, 6)
    options = {"shape": data.shape, "dtype": data.dtype, "chunks": (3, 4), "attributes": {"unit": "m"}}
    root.create_array("deep/w", **options)[...] = data
    if path.suffix == ".zip":
        store.close()
    convert(path, tmp_path / "step")
    assert np.array_equal(load(tmp_path / "step")["deep"]["w"], data)
    with Checkpoint.open(tmp_path / "step") as checkpoint:
        assert checkpoint.attributes == {"zarr": {"": {"by": "me"}, "deep/w": {"unit": "m"}}}


@pytest.mark.parametrize("lost", ["optimizer/large/c/0/0", "model/half/c/0", "model/half/zarr.json"])
def test_an_exported_hierarchy_that_lost_a_file_is_no_zeros(exported, tmp_path, lost):
    path = exported("x.zarr")
    (path / lost).unlink()
    array = lost.partition("/c/")[0].removesuffix("/zarr.json")
    with pytest.raises(CheckpointError, match=array):
        convert(path, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_changed_export_is_damaged(exported, tmp_path):
    path = exported("x.safetensors")
    flip(path, path.stat().st_size - 1)
    with pytest.raises(
        CheckpointError, match=r"x\.safetensors is damaged: array 'odd%2Fkey/.*' is not as it was"
    ):
        convert(path, tmp_path / "back")


@pytest.mark.parametrize("name", ["x.safetensors", "x.zarr", "x.zip"])
def test_damage_found_on_the_way_leaves_nothing(step, exported, tmp_path, name):
    flip(step / "data-00000.bin", 5_000_000)
    with pytest.raises(CheckpointError, match="'optimizer/large'"):
        exported(name)
    assert {path.name for path in tmp_path.iterdir()} == {"step"}


@pytest.mark.parametrize("name", ["x.safetensors", "x.zarr", "x.zip"])
def test_an_export_takes_little_memory(tmp_path, name):
    save(tmp_path / "step", {"w": np.zeros(2**23)})
    with Checkpoint.open(tmp_path / "step") as checkpoint:
        tracemalloc.start()
        export(checkpoint, tmp_path / name)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 16 * 2**20


@pytest.mark.parametrize("name", ["x.safetensors", "x.zarr", "x.zip"])
def test_nothing_is_written_over(exported, tmp_path, name):
    before = exported(name)
    with pytest.raises(CheckpointError, match="exists"):
        exported(name)
    assert before.exists()


def test_what_a_killed_export_left_is_removed_by_the_next(exported, tmp_path):
    left = tmp_path / ".helix-tmp-x.zip-0123"
    left.mkdir()
    exported("x.zip")
    assert not left.exists()


def test_an_ending_that_says_no_form_is_an_error(exported):
    with pytest.raises(ArgumentError, match=r"one of \.safetensors, \.zarr, \.zip, or give --format"):
        exported("x.npz")
    assert exported("x", form="zarr").is_dir()


def test_what_is_no_source_is_said_so(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("hello, this is no file of tensors")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("readme", "nothing")
    messages = {
        "nowhere": "does not exist",
        "empty": "nothing to convert; allowed are",
        "text": "no sound file of safetensors",
        "x.zip": "no Zarr hierarchy",
    }
    for name, message in messages.items():
        with pytest.raises(CheckpointError, match=message):
            convert(tmp_path / name, tmp_path / "out")


HEADERS = {
    "gap": {"x": {"dtype": "U8", "shape": [2], "data_offsets": [2, 4]}},
    "overlap": {
        "x": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
        "y": {"dtype": "U8", "shape": [2], "data_offsets": [2, 4]},
    },
    "beyond": {"x": {"dtype": "U8", "shape": [9], "data_offsets": [0, 9]}},
    "left over": {"x": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}},
    "shape": {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
    "negative": {"x": {"dtype": "U8", "shape": [-2, -2], "data_offsets": [0, 4]}},
    "bool shape": {"x": {"dtype": "U8", "shape": [True, 4], "data_offsets": [0, 4]}},
    "no object": [1],
    "no offsets": {"x": {"dtype": "U8", "shape": [4]}},
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_hostile_header_is_refused(tmp_path, case):
    text = json.dumps(HEADERS[case]).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(text)) + text + b"1234")
    with pytest.raises(CheckpointError, match="no sound file"):
        safetensors_file.read(tmp_path / "x")


def test_a_header_longer_than_its_file_is_refused_unread(tmp_path):
    (tmp_path / "x").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(CheckpointError, match="its header would have"):
        safetensors_file.read(tmp_path / "x")


@given(st.binary(max_size=40), st.integers(0, 200))
def test_no_bytes_crash_the_reader(tmp_path_factory, noise, at):
    path = tmp_path_factory.mktemp("fuzz") / "x"
    safetensors_torch.save_file({"x": torch.ones(3), "y": torch.zeros(2, 2)}, path)
    content = bytearray(path.read_bytes())
    content[at : at + len(noise)] = noise
    path.write_bytes(bytes(content))
    try:
        tensors, _ = safetensors_file.read(path)
    except (CheckpointError, ArgumentError):
        return
    assert all(isinstance(array, np.ndarray) for array in tensors.values())
    shutil.rmtree(path.parent)


def test_names_are_joined_by_dots_as_they_were_given():
    assert dotted("model/blocks/0/A_log") == "model.blocks.0.A_log"
    assert dotted("a%2Fb/%/%25/%7Ex") == "a/b..%.~x"


def test_an_ml_dtypes_array_keeps_its_bits(tmp_path):
    array = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn)
    save(tmp_path / "step", {"x": array})
    with Checkpoint.open(tmp_path / "step") as checkpoint:
        export(checkpoint, tmp_path / "x.safetensors")
    convert(tmp_path / "x.safetensors", tmp_path / "back")
    assert load(tmp_path / "back")["x"].tobytes() == array.tobytes()
