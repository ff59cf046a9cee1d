"""How arrays are cut: shards that follow one another, chunks that map, metadata that is ours only."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_kernel.checkpoint import layout as layouts
from helix_kernel.checkpoint.layout import Layout

FLOAT = np.dtype("<f4")


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(layouts, "CHUNK_BYTES", 64)
    layouts._layout.cache_clear()
    yield
    layouts._layout.cache_clear()


@settings(max_examples=300, deadline=None)
@given(shape=st.lists(st.integers(0, 50), max_size=4).map(tuple), limit=st.integers(8, 400))
def test_one_shard_holds_the_array_in_one_run_and_little_else(shape, limit):
    before, layouts.CHUNK_BYTES = layouts.CHUNK_BYTES, limit
    layouts._layout.cache_clear()
    try:
        layout = Layout.of(shape, FLOAT)
    finally:
        layouts.CHUNK_BYTES = before
        layouts._layout.cache_clear()
    assert Layout.from_metadata(layout.metadata) == layout
    if 0 in shape:
        assert layout.n_shards == len(layout.shards) == 0
        return
    (shard,) = layout.shards
    assert shard.shape == shape
    assert layout.data_bytes(shard) == layout.nbytes == math.prod(shape) * 4
    padding = math.prod(layout.shard_shape) * 4 - layout.nbytes
    assert padding < layout.chunk_bytes
    assert len(layout.tail(layout.nbytes, bytes(layout.nbytes))) == layout.stored_bytes - layout.nbytes


@pytest.mark.parametrize(
    ("shape", "piece", "origins"),
    [
        ((10, 4), (3, 4), [(0, 0), (3, 0), (6, 0), (9, 0)]),
        ((4, 10), (4, 4), [(0, 0), (0, 4), (0, 8)]),
        ((5, 5), (3, 3), [(0, 0), (0, 3), (3, 0), (3, 3)]),
    ],
)
def test_pieces_of_several_writers_are_a_grid_of_shards_that_keeps_their_shape(shape, piece, origins):
    layout = Layout.of(shape, FLOAT, piece)
    assert layout.shard_shape == piece
    assert [shard.origin for shard in layout.shards] == origins
    assert sum(math.prod(shard.shape) for shard in layout.shards) == math.prod(shape)


def test_a_piece_is_never_padded_so_that_the_grid_stays_where_the_writers_are(small):
    assert Layout.of((17, 4), FLOAT).shard_shape == (18, 4)
    assert Layout.of((68, 4), FLOAT, (17, 4)).shard_shape == (17, 4)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [2, 3, 4]},
        {"shape": [-2, 3]},
        {"shape": [2, 3.0]},
        {"shape": [2, 2**70]},
        {"shape": [2, True]},
        {"data_type": "object"},
        {"data_type": None},
        {"fill_value": 1},
        {"codecs": []},
        {"codecs": [{"name": "gzip"}]},
        {"codecs": [{"name": "sharding_indexed", "configuration": {"chunk_shape": [0, 3]}}]},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0, 3]}}},
        {"attributes": {"x": 1}},
        {"shape": {}},
    ],
)
def test_metadata_that_we_do_not_write_is_refused(change):
    document = json.loads(Layout.of((2, 3), FLOAT).metadata) | change
    with pytest.raises(ValueError, match=r"\w"):
        Layout.from_metadata(layouts.to_text(document))


def test_chunks_that_do_not_follow_one_another_are_refused(small):
    text = Layout.of((8, 8), FLOAT).metadata
    assert '"chunk_shape":[2,8]' in text
    with pytest.raises(ValueError, match="does not write"):
        Layout.from_metadata(text.replace('"chunk_shape":[2,8]', '"chunk_shape":[8,2]'))
