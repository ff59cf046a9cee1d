"""What two checkpoints differ in, and reading arrays block by block."""

import math
import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helix_kernel.checkpoint import Checkpoint, blocks, load, save
from helix_kernel.checkpoint.difference import ABSENT, difference, leaves
from helix_kernel.checkpoint.layout import Layout
from helix_kernel.errors import CheckpointError

OLD = Path(__file__).parent / "data/first-form"


@pytest.fixture
def differ(tmp_path):
    def compare(first, second, attributes=({}, {})):
        for name, state, described in zip("ab", (first, second), attributes, strict=True):
            save(tmp_path / name, state, attributes=described)
        with Checkpoint.open(tmp_path / "a") as a, Checkpoint.open(tmp_path / "b") as b:
            return difference(a, b)

    return compare


def flip(path, offset):
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(bytes(content))


def test_a_checkpoint_does_not_differ_from_itself(differ):
    state = {"w": np.array([1.0, math.nan]), "step": 3, "nan": math.nan, "t": (1, [2, {"x": None}])}
    assert not differ(state, state, ({"config": {"a": 1}}, {"config": {"a": 1}}))


def test_config_components_attributes_and_values_differ_by_dotted_path(differ):
    first = {
        "config": {"model": {"d": 8, "old": 1}, "layers": [{"n": 1}, {"n": 2}]},
        "components": {"p:a": "1"},
    }
    second = {
        "config": {"model": {"d": 9}, "layers": [{"n": 1}, {"n": 3}]},
        "components": {"p:a": "2", "q:b": "1"},
    }
    second["config"]["kernel"] = {"components": second["components"]}
    first["metrics"], second["metrics"] = {"loss": 2.0}, {"loss": 1.5}
    found = differ({"rng": {"python": (1, 2)}}, {"rng": {"python": (1, 3)}}, (first, second))
    assert found.config == {"model.d": (8, 9), "model.old": (1, ABSENT), "layers.1.n": (2, 3)}
    assert found.components == {"p:a": ("1", "2"), "q:b": (ABSENT, "1")}
    assert found.attributes == {"metrics.loss": (2.0, 1.5)}
    assert found.values == {"rng.python": ((1, 2), (1, 3))}
    assert found


def test_arrays_differ_by_presence_form_and_tie(differ):
    shared, apart = np.ones(3), np.ones(3)
    first = {"gone": np.ones(1), "shape": np.ones((2, 3)), "type": np.ones(2), "x": shared, "y": shared}
    second = {"come": np.ones(1), "shape": np.ones((3, 2)), "type": np.ones(2, "f4"), "x": shared, "y": apart}
    found = differ(first, second)
    assert (found.only_first, found.only_second) == (["gone"], ["come"])
    assert found.forms == {
        "shape": ("float64 (2, 3)", "float64 (3, 2)"),
        "type": ("float64 (2,)", "float32 (2,)"),
    }
    assert found.ties == {"y": ("x", "y")}
    assert found.changes == []


@pytest.mark.parametrize(
    "dtype",
    ["float32", "float64", "bfloat16", "float8_e4m3fn", "int8", "uint64", "bool", "complex64", "complex128"],
)
def test_norms_are_numpys_of_the_whole_array(differ, dtype):
    rng = np.random.default_rng(0)
    before = (rng.standard_normal((70, 50)) * 3).astype(getattr(ml_dtypes, dtype, dtype))
    after = before.copy()
    after[3:9] = 0
    (change,) = differ({"w": before}, {"w": after}).changes
    wide = np.complex128 if dtype.startswith("complex") else np.float64
    apart = after.astype(wide) - before.astype(wide)
    assert change.norm == pytest.approx(np.linalg.norm(apart), rel=1e-12)
    assert change.relative == pytest.approx(np.linalg.norm(apart) / np.linalg.norm(before.astype(wide)))
    assert change.largest == np.abs(apart).max()
    assert (change.n_changed, change.n_elements) == (np.count_nonzero(before != after), 3500)


def test_small_changes_of_large_numbers_are_not_lost(differ):
    before = np.full(5, 1e4, np.float32)
    after = np.nextafter(before, np.float32(2e4))
    (change,) = differ({"w": before}, {"w": after}).changes
    assert change.largest == 2**-10
    assert change.norm == pytest.approx(2**-10 * math.sqrt(5), rel=1e-14)


def test_a_sign_of_zero_and_a_payload_of_nan_are_changes(differ):
    before = np.array([0.0, math.nan, 0])
    after = np.array([-0.0, math.nan, 0])
    after.view(np.uint8)[8] ^= 1
    found = {change.name: change for change in differ({"w": before}, {"w": after}).changes}
    assert found["w"].n_changed == 2
    assert math.isnan(found["w"].norm)


def test_from_zeros_the_relative_change_is_infinite(differ):
    (change,) = differ({"w": np.zeros(2)}, {"w": np.ones(2)}).changes
    assert (change.relative, change.norm) == (math.inf, math.sqrt(2))


def test_arrays_with_the_same_digest_are_not_read(tmp_path, differ):
    differ({"same": np.ones(9), "w": np.ones(2)}, {"same": np.ones(9), "w": np.zeros(2)})
    flip(tmp_path / "b/data-00000.bin", 5)
    with Checkpoint.open(tmp_path / "a") as a, Checkpoint.open(tmp_path / "b") as b:
        assert [change.name for change in difference(a, b).changes] == ["w"]
    flip(tmp_path / "b/data-00000.bin", 140)
    with (
        Checkpoint.open(tmp_path / "a") as a,
        Checkpoint.open(tmp_path / "b") as b,
        pytest.raises(CheckpointError, match="array 'w'"),
    ):
        difference(a, b)


def test_arrays_that_are_cut_otherwise_are_compared_by_their_elements(tmp_path):
    state = load(OLD)
    save(tmp_path / "same", state)
    state["model"]["wide"] = state["model"]["wide"].copy()
    state["model"]["wide"][1, 30] += 2
    save(tmp_path / "other", state)
    with Checkpoint.open(OLD) as old, Checkpoint.open(tmp_path / "same") as same:
        assert old.digest("model/wide") != same.digest("model/wide")
        assert difference(old, same).changes == []
        with Checkpoint.open(tmp_path / "other") as other:
            (change,) = difference(old, other).changes
    assert (change.name, change.n_changed, change.norm) == ("model/wide", 1, 2)


def test_memory_is_bounded_whatever_the_arrays_size(tmp_path):
    array = np.zeros(2**23)
    for name in "ab":
        save(tmp_path / name, {"w": array})
        array += 1
    del array
    with Checkpoint.open(tmp_path / "a") as a, Checkpoint.open(tmp_path / "b") as b:
        tracemalloc.start()
        (change,) = difference(a, b).changes
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert change.norm == pytest.approx(2**11.5)
    assert peak < 40 * 2**20


@pytest.mark.parametrize("shape", [(), (0, 3), (7,), (3000, 700), (1, 2_000_000), (2, 1, 900_000)])
def test_blocks_are_the_elements_in_order_and_bounded(tmp_path, shape):
    array = np.random.default_rng(0).integers(0, 255, shape, np.uint8).astype(np.float32)
    save(tmp_path / "a", {"w": array.T if array.ndim == 1 else array})
    with Checkpoint.open(tmp_path / "a") as checkpoint:
        found = list(blocks.blocks(checkpoint, "w"))
    assert b"".join(block.tobytes() for block in found) == array.tobytes()
    assert all(block.ndim == 1 and block.nbytes <= 5 * 2**20 for block in found)
    assert len(found) >= array.nbytes / (5 * 2**20)


def test_blocks_of_a_grid_of_shards_are_the_elements_in_order():
    with Checkpoint.open(OLD) as checkpoint:
        assert checkpoint.manifest.arrays["model/wide"].layout.n_shards > 1
        for name in checkpoint.arrays:
            found = b"".join(block.tobytes() for block in blocks.blocks(checkpoint, name))
            assert found == checkpoint[name].read().tobytes()


def test_blocks_are_checked(tmp_path):
    save(tmp_path / "a", {"w": np.zeros(3_000_000)})
    flip(tmp_path / "a/data-00000.bin", 20_000_000)
    with (
        Checkpoint.open(tmp_path / "a") as checkpoint,
        pytest.raises(CheckpointError, match=r"part of array 'w', were changed"),
    ):
        list(blocks.blocks(checkpoint, "w"))


@given(st.data())
def test_shards_are_in_order_exactly_where_the_layout_says_so(data):
    shape = tuple(data.draw(st.lists(st.integers(1, 6), min_size=0, max_size=4)))
    piece = tuple(data.draw(st.integers(1, n)) for n in shape)
    layout = Layout.of(shape, np.dtype("u2"), piece)
    array = np.arange(math.prod(shape), dtype="u2").reshape(shape)
    parts = []
    for shard in layout.shards:
        part = np.zeros(layout.data_shape(shard), "u2")
        part[tuple(slice(n) for n in shard.shape)] = array[shard.region]
        parts.append(part.tobytes())
    assert blocks.in_order(layout) <= (b"".join(parts) == array.tobytes())


def test_the_shards_of_one_writer_are_in_order():
    assert all(
        blocks.in_order(Layout.of(shape, np.dtype("f4"))) for shape in [(), (3,), (1000, 9000), (1, 1, 7)]
    )


@given(
    st.lists(st.lists(st.integers(), min_size=1), max_size=5),
    st.lists(st.integers(1, 4), min_size=1, max_size=9),
)
def test_aligned_parts_stand_at_the_same_places(cut, lengths):
    whole = np.array([n % 2**31 for part in cut for n in part], np.int64)
    left = iter([np.array([n % 2**31 for n in part], np.int64) for part in cut])
    ends = np.cumsum(lengths)
    right = (part for part in np.split(whole, ends[ends < len(whole)]) if len(part))
    pairs = list(blocks.aligned(left, right))
    assert all(np.array_equal(a, b) for a, b in pairs)
    assert sum(len(a) for a, _ in pairs) == len(whole)


def test_leaves_are_values_by_dotted_path():
    found = dict(leaves({"a": {"b": 1, "c": []}, "d": [1, 2], "e": [{"f": 3}, 4], "g": {}}))
    assert found == {"a.b": 1, "a.c": [], "d": [1, 2], "e.0.f": 3, "e.1": 4, "g": {}}
