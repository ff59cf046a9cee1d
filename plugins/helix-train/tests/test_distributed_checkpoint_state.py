"""How a state becomes a plan and a plan a state again, and what is refused, as one process sees it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from obstore.store import MemoryStore
from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint import load as torch_load
from torch.distributed.checkpoint import save as torch_save
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata

import helix_train.distributed_checkpoint.grid as grids
from helix_kernel.checkpoint import Checkpoint, load, save
from helix_kernel.checkpoint.durable import hidden_sibling
from helix_kernel.checkpoint.layout import Layout
from helix_kernel.errors import ArgumentError, IncompatibleCheckpointError
from helix_train.distributed_checkpoint import (
    HelixLoadPlanner,
    HelixStorageReader,
    HelixStorageWriter,
    load_sharded,
    save_sharded,
)
from helix_train.distributed_checkpoint.grid import cells, grid_of
from helix_train.distributed_checkpoint.state_tree import merged


def test_one_process_saves_and_loads_without_a_group(tmp_path):
    weight = torch.randn(3, 2)
    state = {"model": {"a.w": weight, "a.tied": weight}, 1: (torch.ones(2), [np.arange(3)]), "step": 3}
    save_sharded(tmp_path / "new/run/step", state, attributes={"loss": 0.5})
    save(tmp_path / "expected", state, attributes={"loss": 0.5})
    found, expected = Checkpoint.open(tmp_path / "new/run/step"), Checkpoint.open(tmp_path / "expected")
    assert (found.manifest.state, found.ties) == (expected.manifest.state, expected.ties)
    assert (found.arrays, found.attributes) == (expected.arrays, expected.attributes)


def test_names_count_and_not_nesting_and_only_what_is_asked_for_is_read(tmp_path):
    save(tmp_path / "step", {"a.b": torch.arange(3), "c": {"d": {"e": 1.5, "f": [1, 2]}}, "z": torch.ones(1)})
    numbers = np.zeros(3, np.int64)
    state = {"a": {"b": numbers}, "c": {"d": {"f": None}}}
    load_sharded(tmp_path / "step", state)
    assert numbers.tolist() == [0, 1, 2]
    assert state["a"]["b"] is numbers
    assert state["c"] == {"d": {"e": 1.5, "f": [1, 2]}}, "a part without tensors is replaced as a whole"


def test_an_optimizer_without_state_yet_takes_on_the_values_alone(tmp_path):
    save(tmp_path / "step", {"state": {0: {"m": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]})
    state = {"state": {}, "param_groups": []}
    load_sharded(tmp_path / "step", state)
    assert state == {"state": {}, "param_groups": [{"lr": 0.1}]}


def test_what_dead_writers_of_the_same_checkpoint_left_is_removed_and_no_more(tmp_path):
    own, other = hidden_sibling(tmp_path / "step"), hidden_sibling(tmp_path / "step-1")
    own.mkdir()
    other.mkdir()
    save_sharded(tmp_path / "step", {})
    assert sorted(tmp_path.iterdir()) == [other, tmp_path / "step"]


def test_objects_with_a_state_stand_for_it(tmp_path):
    model, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    save_sharded(tmp_path / "step", {"model": model})
    load_sharded(tmp_path / "step", {"model": other})
    assert torch.equal(model.weight, other.weight)
    assert load(tmp_path / "step")["model"].keys() == {"weight", "bias"}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"x": object()}, "state 'x' is a builtins.object; allowed are"),
        ({"x": {"y": np.float32(1)}}, "state 'x/y' is a numpy.float32; allowed are torch tensors"),
        ({"x": {1.5: 1}}, "has the key 1.5; allowed are str and int"),
        ({"a.b": torch.ones(1), "a": {"b": torch.ones(1)}}, "two tensors of the name 'a.b'"),
        ({"x": torch.ones(2).to_sparse()}, "state 'x' is a torch.sparse_coo tensor"),
        ({"x": torch.ones(2, device="meta")}, "state 'x' is .* on meta"),
        ({"x": np.ones((4, 4))[::2]}, "state 'x' is a view in numpy"),
        ({"x": np.array(["a"])}, "state 'x' has dtype <U1, which no checkpoint holds"),
    ],
)
def test_what_cannot_be_stored_is_refused_by_name(tmp_path, state, message):
    with pytest.raises(ArgumentError, match=message):
        save_sharded(tmp_path / "step", state)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_in_an_object_store_can_be_read_but_not_be_written():
    store = MemoryStore()
    save(store, {"model": torch.arange(6.0).reshape(2, 3)})
    state = {"model": torch.zeros(2, 3)}
    load_sharded(store, state)
    assert state["model"].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    with pytest.raises(ArgumentError, match="several ranks can write to a directory only"):
        save_sharded(store, state)


def test_attributes_are_values_alone(tmp_path):
    with pytest.raises(ArgumentError, match="attribute 'x' is an array"):
        save_sharded(tmp_path / "step", {}, attributes={"x": torch.ones(1)})


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"modl": torch.ones(2)}, "modl is in the state only; nearest in the checkpoint: model"),
        ({"model": torch.ones(3)}, r"model: float32 \(2,\) in the checkpoint, float32 \(3,\) in the state"),
        (
            {"model": torch.ones(2).int()},
            r"model: float32 \(2,\) in the checkpoint, int32 \(2,\) in the state",
        ),
        ({"step": torch.ones(2)}, "step is an array in the state, int in the checkpoint"),
        ({"model": None}, "model is an array in the checkpoint, NoneType in the state"),
        ({"pair": (torch.ones(1), 1)}, "pair.1 stands in a tuple with tensors"),
        ({"stop": 1}, "stop is in the state only; nearest in the checkpoint: step"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_before_anything_changes(tmp_path, state, message):
    save(tmp_path / "step", {"model": torch.zeros(2), "step": 3, "pair": (torch.zeros(1), 2)})
    whole = {"step": 0, **state}
    with pytest.raises(IncompatibleCheckpointError, match=message):
        load_sharded(tmp_path / "step", whole)
    assert whole == {"step": 0, **state}


def test_without_our_planner_nothing_is_pickled_but_refused(tmp_path):
    with (
        pytest.warns(UserWarning, match="disabled"),
        pytest.raises(BaseException, match="HelixSavePlanner") as caught,
    ):
        torch_save({"x": torch.ones(1)}, storage_writer=HelixStorageWriter(tmp_path / "step"))
    assert isinstance(caught.value.failures[0][0], ArgumentError)
    assert list(tmp_path.iterdir()) == []


def test_our_planner_refuses_torch_s_own_reader(tmp_path):
    with pytest.warns(UserWarning, match="disabled"):
        torch_save({"x": torch.ones(1)}, storage_writer=FileSystemWriter(tmp_path / "step"))
    reader = FileSystemReader(tmp_path / "step")
    with (
        pytest.warns(UserWarning, match="disabled"),
        pytest.raises(BaseException, match="HelixStorageReader"),
    ):
        torch_load({"x": torch.ones(1)}, storage_reader=reader, planner=HelixLoadPlanner())


def test_torch_s_own_planner_reads_tensors(tmp_path):
    save(tmp_path / "step", {"model": {"w": torch.arange(6.0).reshape(2, 3)}, "step": 1})
    state = {"model": {"w": torch.zeros(2, 3, dtype=torch.float64).T.contiguous().T}}
    with pytest.warns(UserWarning, match="disabled"):
        torch_load(state, storage_reader=HelixStorageReader(tmp_path / "step"))
    assert state["model"]["w"].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]


@st.composite
def partitions(draw):
    """Lengths of axes, and where each is cut."""
    shape = draw(st.lists(st.integers(1, 12), min_size=1, max_size=3))
    cuts = [sorted(draw(st.sets(st.integers(1, n), max_size=3)) | {0, n}) for n in shape]
    return tuple(shape), cuts


@settings(max_examples=150)
@given(partition=partitions())
def test_every_cell_of_a_grid_belongs_to_one_piece(partition):
    shape, cuts = partition
    spans = itertools.product(*(itertools.pairwise(of_axis) for of_axis in cuts))
    pieces = [
        ChunkStorageMetadata(torch.Size(low for low, _ in span), torch.Size(high - low for low, high in span))
        for span in spans
    ]
    layout = Layout.of(shape, np.dtype("<f4"), grid_of("x", shape, pieces))
    owned = [[shard.key for shard in cells(layout, piece)] for piece in pieces]
    assert sorted(itertools.chain(*owned)) == sorted(shard.key for shard in layout.shards)
    for piece, keys in zip(pieces, owned, strict=True):
        size = {shard.key: math.prod(shard.shape) for shard in layout.shards}
        assert sum(size[key] for key in keys) == math.prod(piece.sizes)


def test_pieces_that_leave_a_gap_or_cut_too_fine_are_refused(monkeypatch):
    pieces = [ChunkStorageMetadata(torch.Size([low]), torch.Size([n])) for low, n in ((0, 3), (3, 4))]
    with pytest.raises(ArgumentError, match="state 'x' has 8 elements, of which the ranks that write hold 7"):
        grid_of("x", (8,), pieces)
    monkeypatch.setattr(grids, "MAX_SHARDS", 2)
    with pytest.raises(
        ArgumentError, match="state 'x' is cut so unevenly that it would be stored in 3 shards"
    ):
        grid_of("x", (7,), pieces)


@pytest.mark.parametrize(
    ("first", "second"),
    [(1, 2), (1, True), (1, 1.0), (0.0, -0.0), ([1], [1, 2]), ([1], (1,)), ({"y": 1}, 1), (None, "a")],
)
def test_values_that_differ_between_ranks_are_refused(first, second):
    with pytest.raises(ArgumentError, match=r"state 'x(/0)?' is .* on rank 0 and .* on rank 1"):
        merged([{"x": first}, {"x": second}])


def test_ranks_may_hold_different_keys():
    assert merged([{"a": 1, "n": math.nan}, {"b": {"c": (2,)}, "n": math.nan}])["b"] == {"c": (2,)}
