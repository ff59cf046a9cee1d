"""Plain zarr reads what a checkpoint writes."""

import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import zarr

from helix_kernel.checkpoint import save, zarr_dtypes, zarr_store
from helix_kernel.checkpoint.checkpoint_store import register_dtypes
from helix_kernel.checkpoint.dtypes import DTYPES, EXTENSIONS
from helix_kernel.checkpoint.layout import _layout
from helix_kernel.errors import ArgumentError

CLASSES = {
    cls._zarr_v3_name: cls
    for cls in vars(zarr_dtypes).values()
    if isinstance(cls, type) and issubclass(cls, zarr_dtypes._MlFloat) and cls is not zarr_dtypes._MlFloat
}


@pytest.mark.parametrize("dtype", sorted(DTYPES))
@pytest.mark.parametrize("shape", [(), (0, 3), (5, 2), (1, 7, 11), (2, 3, 40), (2, 41)])
def test_zarr_reads_every_type_and_shape_to_the_bit(tmp_path, monkeypatch, dtype, shape):
    monkeypatch.setattr("helix_kernel.checkpoint.layout.CHUNK_BYTES", 40)  # so that there are edges
    _layout.cache_clear()
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(DTYPES[dtype])
    save(tmp_path / "step", {"model": {"x": array}})
    read = zarr.open_group(zarr_store(tmp_path / "step"), mode="r")["model/x"]
    assert (read.shape, read.dtype) == (array.shape, array.dtype)
    assert np.asarray(read[...]).tobytes() == array.tobytes()
    if shape and shape[0] > 1:
        assert np.asarray(read[1:2]).tobytes() == array[1:2].tobytes()


def test_plain_fsspec_opens_the_manifest_as_references(tmp_path):
    fsspec = pytest.importorskip("fsspec")
    from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

    save(tmp_path / "step", {"model": {"w": np.arange(6.0)}})
    step = fsspec.filesystem("dir", path=str(tmp_path / "step"), fs=fsspec.filesystem("file"))
    manifest = str(tmp_path / "step/manifest.json")
    references = AsyncFileSystemWrapper(
        fsspec.filesystem("reference", fo=manifest, fs=step), asynchronous=True
    )
    store = zarr.storage.FsspecStore(references, read_only=True)
    assert zarr.open(store, mode="r")["model/w"][:].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_checkpoint_cannot_be_changed_through_zarr(tmp_path):
    save(tmp_path / "step", {"w": np.ones(2)})
    with pytest.raises(ArgumentError, match="is a checkpoint; it can be read, not changed"):
        zarr.open_group(zarr_store(tmp_path / "step"), mode="r")["w"][0] = 3


def test_zarr_lists_the_groups_and_arrays_and_our_root_attribute(tmp_path):
    save(tmp_path / "step", {"model": {"blocks.0.A_log": np.ones(2)}, "n": 3}, attributes={"step": 3})
    group = zarr.open(zarr_store(tmp_path / "step"), mode="r")
    assert [path for path, _ in group["model"].members(max_depth=None)] == [
        "blocks",
        "blocks/0",
        "blocks/0/A_log",
    ]
    assert group.attrs["helix"]["attributes"] == {"step": 3}
    assert group.attrs["helix"]["state"]["n"] == 3


def test_zarr_sees_a_flipped_bit_by_the_crc(tmp_path):
    save(tmp_path / "step", {"x": np.ones(4)})
    pack = tmp_path / "step/data-00000.bin"
    pack.write_bytes(bytes([pack.read_bytes()[0] ^ 1]) + pack.read_bytes()[1:])
    with pytest.raises(ValueError, match="checksum"):
        zarr.open_group(zarr_store(tmp_path / "step"), mode="r")["x"][:]


@pytest.mark.parametrize("name", EXTENSIONS)
def test_zarr_writes_and_reads_the_types_that_we_teach_it(tmp_path, name):
    register_dtypes()
    array = np.array([0.5, 1, 2, np.nan]).astype(DTYPES[name])
    zarr.create_array(tmp_path / "z", data=array, chunks=(3,), fill_value=array[1])
    read = zarr.open_array(tmp_path / "z", mode="r")
    assert read[:].tobytes() == array.tobytes()
    assert read.fill_value == array[1]


def test_the_classes_we_teach_cover_the_types_that_zarr_lacks():
    assert set(CLASSES) == set(EXTENSIONS)
    assert {cls.__name__ for cls in CLASSES.values()} == set(zarr_dtypes.NAMES)


def test_helix_kernel_registers_them_with_zarr():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    declared = project["entry-points"]["zarr.data_type"]
    loaded = {EntryPoint(name, value, "zarr.data_type").load() for name, value in declared.items()}
    assert loaded == set(CLASSES.values())
