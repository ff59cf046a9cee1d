"""A region of an array comes back to the bit, however it is cut, from the chunks that hold it alone."""

import math

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_kernel.checkpoint import Checkpoint, layout, load, regions, save, zarr_store
from helix_kernel.checkpoint.digests import ChunkDigests
from helix_kernel.checkpoint.layout import Layout
from helix_kernel.checkpoint.manifest import MANIFEST, Extent, Manifest, StoredArray
from helix_kernel.checkpoint.pack import PackWriter
from helix_kernel.checkpoint.parts import Part, packed_bytes, write_parts
from helix_kernel.errors import ArgumentError, CheckpointError


def write_grid(path, array, piece):
    """Write a checkpoint of one array as several writers would, with our own hands: a grid of shards."""
    cut = Layout.of(array.shape, array.dtype, piece)
    content, extents = b"", []
    for shard in cut.shards:
        block = np.zeros(cut.data_shape(shard), array.dtype)
        block[tuple(slice(n) for n in shard.shape)] = array[shard.region]
        digests = ChunkDigests(cut.chunk_bytes)
        digests.update(block.reshape(-1).view(np.uint8))
        content += bytes(-len(content) % 64)
        extents.append(Extent("data-00000.bin", len(content), digests.finish()))
        content += block.tobytes() + cut.tail(block.nbytes, block.tobytes())
    path.mkdir()
    (path / "data-00000.bin").write_bytes(content)
    write_manifest(path, StoredArray(cut, tuple(extents)))


def write_compressed_grid(path, array, piece):
    """The same with compressed shards, by the writer."""
    cut = Layout.of(array.shape, array.dtype, piece).compressed("bitshuffle-lz4")
    parts = [Part(cut, shard, array[shard.region]) for shard in cut.shards]
    path.mkdir()
    with PackWriter(path / "data-00000.bin", packed_bytes(parts)) as pack:
        extents = write_parts(pack, "data-00000.bin", parts)
    write_manifest(path, StoredArray(cut, tuple(extents)))


def write_manifest(path, stored):
    manifest = Manifest(
        arrays={"x": stored},
        packs={"data-00000.bin": (path / "data-00000.bin").stat().st_size},
        state={"x": {"$array": "x"}},
        ties={},
        attributes={},
    )
    (path / MANIFEST).write_bytes(manifest.to_bytes())


@st.composite
def cuts(draw):
    shape = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    piece = [draw(st.integers(1, n)) for n in shape]
    origin = [draw(st.integers(0, n)) for n in shape]
    size = [draw(st.integers(0, n - low)) for n, low in zip(shape, origin, strict=True)]
    return tuple(shape), tuple(piece), tuple(origin), tuple(size)


@settings(max_examples=250, deadline=None)
@given(
    cut=cuts(),
    chunk_bytes=st.integers(8, 200),
    slab_bytes=st.integers(1, 300),
    verify=st.booleans(),
    write=st.sampled_from([write_grid, write_compressed_grid]),
)
def test_every_region_of_every_grid_comes_back(tmp_path_factory, cut, chunk_bytes, slab_bytes, verify, write):
    shape, piece, origin, size = cut
    array = np.random.default_rng(0).random(math.prod(shape), np.float32).reshape(shape)
    path = tmp_path_factory.mktemp("grid") / "step"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "CHUNK_BYTES", chunk_bytes)
        patch.setattr(regions, "SLAB_BYTES", slab_bytes)
        layout._layout.cache_clear()
        write(path, array, piece)
        out = np.empty(size, np.float32)
        with Checkpoint.open(path) as checkpoint:
            checkpoint["x"].read_into(out, origin, verify=verify)
            checkpoint.verify()
            by_zarr = zarr.open(zarr_store(path), mode="r")["x"][...]
        layout._layout.cache_clear()
    region = tuple(slice(low, low + n) for low, n in zip(origin, size, strict=True))
    np.testing.assert_array_equal(out, array[region])
    np.testing.assert_array_equal(load(path)["x"], array)
    np.testing.assert_array_equal(by_zarr, array)


def test_a_region_is_read_from_the_shards_that_hold_it_and_from_no_other(tmp_path):
    array = np.arange(48, dtype=np.int64).reshape(6, 8)
    write_grid(tmp_path / "step", array, (3, 4))
    with Checkpoint.open(tmp_path / "step") as checkpoint:
        lower_left = checkpoint.manifest.arrays["x"].extents[2]
    pack = tmp_path / "step/data-00000.bin"
    content = bytearray(b"\xff" * pack.stat().st_size)
    content[lower_left.offset : lower_left.offset + 96] = pack.read_bytes()[lower_left.offset :][:96]
    pack.write_bytes(content)
    with Checkpoint.open(tmp_path / "step") as checkpoint:
        out = np.empty((3, 4), np.int64)
        checkpoint["x"].read_into(out, (3, 0))
        np.testing.assert_array_equal(out, array[3:, :4])
        with pytest.raises(CheckpointError, match="part of array 'x', were changed"):
            checkpoint["x"].read_into(out, (3, 1))


def test_a_narrow_region_of_a_wide_array_is_read_a_little_at_a_time(tmp_path, monkeypatch):
    array = np.arange(4000, dtype=np.float64).reshape(100, 40)
    save(tmp_path / "step", {"x": array})
    read = []
    fetch = regions.fetch

    def recorded(pieces, packs, source):
        read.append(sum(piece.nbytes for piece in pieces))
        fetch(pieces, packs, source)

    monkeypatch.setattr(regions, "fetch", recorded)
    monkeypatch.setattr(regions, "SLAB_BYTES", 3200)
    out = np.empty((100, 2))
    with Checkpoint.open(tmp_path / "step") as checkpoint:
        checkpoint["x"].read_into(out, (0, 7), verify=False)
    np.testing.assert_array_equal(out, array[:, 7:9])
    assert read == [3200] * 10


@pytest.mark.parametrize("shape", [(), (0,), (3, 0)])
def test_what_has_no_axes_or_no_elements_is_read_too(tmp_path, shape):
    save(tmp_path / "step", {"x": np.full(shape, 7.0)})
    out = np.zeros(shape)
    with Checkpoint.open(tmp_path / "step") as checkpoint:
        checkpoint["x"].read_into(out, (0,) * len(shape))
    np.testing.assert_array_equal(out, np.full(shape, 7.0))


@pytest.mark.parametrize(
    ("out", "origin"),
    [
        (np.empty((2, 2)), (5, 0)),
        (np.empty((2, 2)), (-1, 0)),
        (np.empty((2, 2)), (0,)),
        (np.empty(2), (0, 0)),
        (np.empty((2, 2), np.float32), (0, 0)),
        (np.empty((4, 4))[::2, ::2], (0, 0)),
    ],
)
def test_a_region_that_does_not_fit_is_refused(tmp_path, out, origin):
    save(tmp_path / "step", {"x": np.ones((6, 4))})
    with (
        Checkpoint.open(tmp_path / "step") as checkpoint,
        pytest.raises(ArgumentError, match=r"float64 \(6, 4\)"),
    ):
        checkpoint["x"].read_into(out, origin)
