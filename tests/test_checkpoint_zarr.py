"""Plain zarr reads what a checkpoint writes."""

import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.dtype import data_type_registry

from helix_kernel.checkpoint import save, zarr_dtypes
from helix_kernel.checkpoint.dtypes import DTYPES, EXTENSIONS

CLASSES = {
    cls._zarr_v3_name: cls
    for cls in vars(zarr_dtypes).values()
    if isinstance(cls, type) and issubclass(cls, zarr_dtypes._MlFloat) and cls is not zarr_dtypes._MlFloat
}


@pytest.fixture(autouse=True)
def _registered():
    for name, cls in CLASSES.items():
        data_type_registry.register(name, cls)


@pytest.mark.parametrize("dtype", sorted(DTYPES))
@pytest.mark.parametrize("shape", [(), (0, 3), (5, 2), (7, 1, 11)])
def test_zarr_reads_every_type_and_shape_to_the_bit(tmp_path, monkeypatch, dtype, shape):
    monkeypatch.setattr("helix_kernel.checkpoint.layout.CHUNK_BYTES", 40)  # so that there are edges
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(DTYPES[dtype])
    save(tmp_path / "step", {"model": {"x": array}})
    read = zarr.open_group(tmp_path / "step", mode="r")["model/x"]
    assert (read.shape, read.dtype) == (array.shape, array.dtype)
    assert np.asarray(read[...]).tobytes() == array.tobytes()


def test_zarr_lists_the_groups_and_arrays_and_our_root_attribute(tmp_path):
    save(tmp_path / "step", {"model": {"blocks.0.A_log": np.ones(2)}, "n": 3}, attributes={"step": 3})
    group = zarr.open_group(tmp_path / "step", mode="r")
    assert [path for path, _ in group["model"].members(max_depth=None)] == [
        "blocks",
        "blocks/0",
        "blocks/0/A_log",
    ]
    assert group.attrs["helix"]["attributes"] == {"step": 3}
    assert group.attrs["helix"]["state"]["n"] == 3


def test_zarr_sees_a_flipped_bit_by_the_crc(tmp_path):
    save(tmp_path / "step", {"x": np.ones(4)})
    chunk = tmp_path / "step/x/c.0"
    chunk.write_bytes(bytes([chunk.read_bytes()[0] ^ 1]) + chunk.read_bytes()[1:])
    with pytest.raises(ValueError, match="checksum"):
        zarr.open_group(tmp_path / "step", mode="r")["x"][:]


@pytest.mark.parametrize("name", EXTENSIONS)
def test_zarr_writes_and_reads_the_types_that_we_teach_it(tmp_path, name):
    array = np.array([0.5, 1, 2, np.nan]).astype(DTYPES[name])
    zarr.create_array(tmp_path / "z", data=array, chunks=(3,), fill_value=array[1])
    read = zarr.open_array(tmp_path / "z", mode="r")
    assert read[:].tobytes() == array.tobytes()
    assert read.fill_value == array[1]


def test_the_classes_we_teach_cover_the_types_that_zarr_lacks():
    assert set(CLASSES) == set(EXTENSIONS)


def test_helix_kernel_registers_them_with_zarr():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    declared = project["entry-points"]["zarr.data_type"]
    loaded = {EntryPoint(name, value, "zarr.data_type").load() for name, value in declared.items()}
    assert loaded == set(CLASSES.values())
