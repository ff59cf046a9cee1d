"""Any state comes back equal to the bit, and equal when zarr-python and TensorStore read it."""

import math
from contextlib import contextmanager
from unittest import mock

import numpy as np
import pytest
import tensorstore
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_kernel.checkpoint import Checkpoint, choosing, layout, load, save, zarr_store
from helix_kernel.checkpoint.dtypes import DTYPES

KEYS = st.sampled_from(["w", "blocks.0.A_log", "blocks.1.A_log", "a/b", "..", "ü", "W"]) | st.integers(0, 3)


@contextmanager
def small_chunks():
    """Cut arrays over 100 bytes as those over 4 MiB are, so that small states have edges and padding."""
    with mock.patch.object(layout, "CHUNK_BYTES", 100):
        layout._layout.cache_clear()
        yield
    layout._layout.cache_clear()


@st.composite
def arrays(draw):
    """Any bits of any type and shape, lying in memory in any way."""
    dtype = DTYPES[draw(st.sampled_from(sorted(DTYPES)))]
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=3)))
    size = math.prod(shape) * dtype.itemsize
    raw = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), np.uint8)
    raw = raw & 1 if dtype.kind == "b" else raw  # other bytes are no booleans
    array = raw.copy().view(dtype).reshape(shape)
    match draw(st.sampled_from(["as it is", "transposed", "reversed", "strided", "repeated", "big-endian"])):
        case "transposed":
            return array.T
        case "reversed" if array.ndim:
            return array[::-1]
        case "strided" if array.ndim:
            return np.repeat(array, 2, axis=-1)[..., ::2]
        case "repeated":
            return np.broadcast_to(array, (3, *shape))
        case "big-endian" if dtype.name in ("int16", "int32", "float32", "float64", "complex64"):
            return array.astype(dtype.newbyteorder(">"))
    return array


@st.composite
def states(draw):
    """A nested state, in which some arrays are there twice."""
    leaves = draw(st.lists(arrays(), min_size=1, max_size=4))
    some = st.sampled_from(range(len(leaves))).map(leaves.__getitem__)
    return draw(
        st.dictionaries(
            KEYS, st.recursive(some, lambda inner: st.dictionaries(KEYS, inner, max_size=3)), max_size=4
        )
    )


def pairs(left, right):
    """Return what stands at the same places of two states."""
    if isinstance(left, dict):
        assert [*left] == [*right]
        return [pair for key in left for pair in pairs(left[key], right[key])]
    return [(left, right)]


def bits(array):
    """Return an array's shape, type and bytes, in the order of bytes in which it is stored."""
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return array.shape, little.dtype.name, np.ascontiguousarray(little).tobytes()


@settings(max_examples=120)
@given(state=states(), compression=st.sampled_from([None, "bitshuffle-lz4"]))
def test_every_state_is_the_same_to_helix_zarr_and_tensorstore(state, compression, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "step"
    with small_chunks(), mock.patch.object(choosing, "WORTHWHILE", 99):
        save(path, state, compression=compression)
    for options in ({}, {"verify": False}, {"mmap": True}):
        for saved, loaded in pairs(state, load(path, **options)):
            assert bits(saved) == bits(loaded)
    with Checkpoint.open(path) as checkpoint:
        checkpoint.verify()
        group = zarr.open_group(zarr_store(path), mode="r")
        context = keys_of(checkpoint)
        for saved, info in pairs(state, checkpoint.tree()):
            assert bits(saved) == bits(np.asarray(group[info.name][...]))
            assert bits(saved) == bits(by_tensorstore(info.name, context))


@pytest.mark.parametrize("compression", [None, "bitshuffle-lz4"])
def test_arrays_of_several_real_chunks_are_the_same_to_zarr_and_tensorstore(tmp_path, compression):
    rng = np.random.default_rng(0)
    state = {
        "tall": rng.random((40_001, 33), np.float32),
        "wide": rng.random((3, 700_001), np.float32),
        "flat": rng.integers(0, 255, 9_000_001, np.uint8),
        "zeros": np.zeros((9000, 77)),
    }
    save(tmp_path / "step", state, compression=compression)
    group = zarr.open_group(zarr_store(tmp_path / "step"), mode="r")
    with Checkpoint.open(tmp_path / "step") as checkpoint:
        context = keys_of(checkpoint)
    for name, saved in state.items():
        assert bits(saved) == bits(np.asarray(group[name][...]))
        assert bits(saved) == bits(by_tensorstore(name, context))


def test_the_comparison_of_these_tests_sees_each_difference():
    zero = np.zeros(2, np.float32)
    others = [-zero, zero.astype(np.float64), zero[:1], zero[None], zero.view(np.int32)]
    assert all(bits(zero) != bits(other) for other in others)
    assert bits(zero) == bits(zero.astype(">f4"))


def keys_of(checkpoint):
    """Return a memory of TensorStore's with every Zarr key of a checkpoint, from where its manifest says."""
    context = tensorstore.Context()
    store = tensorstore.KvStore.open({"driver": "memory"}, context=context).result()
    for key, document in checkpoint.manifest.documents().items():
        store[key] = document.encode()
    packs = {name: (checkpoint.path / name).read_bytes() for name in checkpoint.manifest.packs}
    for key, (pack, offset, length) in checkpoint.manifest.shards().items():
        store[key] = packs[pack][offset : offset + length]
    return context


def by_tensorstore(name, context):
    place = {"driver": "zarr3", "kvstore": {"driver": "memory", "path": f"{name}/"}}
    return tensorstore.open(place, context=context, read=True).result().read().result()
