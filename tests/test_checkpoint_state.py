"""What goes into a checkpoint comes out of it, to the bit."""

import json
import math
import random
import struct
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helix_kernel.checkpoint import Checkpoint, load, save
from helix_kernel.checkpoint.dtypes import DTYPES
from helix_kernel.checkpoint.layout import CHUNK_BYTES, Layout, _layout
from helix_kernel.errors import ArgumentError, CheckpointError, UnknownNameError

KEYS = (
    st.text(max_size=8)
    | st.integers(-3, 2**70)
    | st.sampled_from(["a.b", "a", "a.b.c", "A", "..", "/", "zarr.json", "$x"])
)
SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@st.composite
def arrays(draw):
    dtype = np.dtype(DTYPES[draw(st.sampled_from(sorted(DTYPES)))])
    shape = draw(SHAPES)
    size = math.prod(shape) * dtype.itemsize
    raw = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), np.uint8)
    raw = raw & 1 if dtype.kind == "b" else raw  # other bytes are no booleans
    array = raw.copy().view(dtype).reshape(shape)
    return array.T if draw(st.booleans()) else array


VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.just(struct.unpack(">d", bytes.fromhex("7ff8dead00000001"))[0])
    | st.text(max_size=5)
    | arrays()
)
STATES = st.dictionaries(
    KEYS,
    st.recursive(
        VALUES,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.lists(inner, max_size=3).map(tuple)
            | st.dictionaries(KEYS, inner, max_size=3)
        ),
        max_leaves=6,
    ),
    max_size=3,
)


def same(left, right):
    """Whether two states are equal in type, nesting, order and every bit."""
    if isinstance(left, np.ndarray | np.generic):
        return (
            isinstance(right, np.ndarray)
            and (left.shape, left.dtype) == (right.shape, right.dtype)
            and left.tobytes() == right.tobytes()
        )
    if isinstance(left, dict):
        keys = [*left] == [*right] and [*map(type, left)] == [*map(type, right)]
        return keys and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return isinstance(right, float) and struct.pack("d", left) == struct.pack("d", right)
    return type(left) is type(right) and left == right


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(state=STATES)
def test_every_state_comes_back_to_the_bit(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "step"
    save(path, state)
    assert same(state, load(path))


def test_the_comparison_of_these_tests_sees_each_difference():
    differing = [
        ([1], (1,)),
        ({1: 0}, {"1": 0}),
        (0.0, -0.0),
        (np.float32([0.0]), np.float32([-0.0])),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (1, True),
    ]
    assert not any(same(left, right) for left, right in differing)


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu]
)
@pytest.mark.parametrize("shape", [(), (0,), (3, 4)])
def test_torch_types_that_numpy_lacks_come_back_to_the_bit(tmp_path, dtype, shape):
    bits = torch.randint(0, 256, (*shape, dtype.itemsize), dtype=torch.uint8)
    tensor = bits.view(dtype).reshape(shape)
    save(tmp_path / "step", {"x": tensor})
    back = load(tmp_path / "step", as_torch=True)["x"]
    assert back.dtype == dtype
    assert back.shape == tensor.shape
    same_size = {1: torch.uint8, 2: torch.int16}[dtype.itemsize]
    assert torch.equal(back.view(same_size), tensor.view(same_size))


def test_views_and_lazy_signs_of_torch_are_stored_as_they_read(tmp_path):
    z = torch.tensor([1 + 2j, 3 - 4j])
    state = {
        "t": torch.arange(6).reshape(2, 3).T,
        "expanded": torch.ones(1).expand(3),
        "conj": z.conj(),
        "neg": z.conj().imag,
    }
    save(tmp_path / "step", state)
    back = load(tmp_path / "step", as_torch=True)
    assert all(torch.equal(state[key], back[key]) for key in state)


def test_big_endian_arrays_come_back_equal_and_little_endian(tmp_path):
    save(tmp_path / "step", {"x": np.arange(3, dtype=">i4")})
    back = load(tmp_path / "step")["x"]
    assert back.tolist() == [0, 1, 2]
    assert back.dtype.str == "<i4"


def test_tied_tensors_are_stored_once_and_tied_again(tmp_path):
    model = torch.nn.ModuleDict({"embedding": torch.nn.Linear(3, 4), "head": torch.nn.Linear(3, 4)})
    model["head"].weight = model["embedding"].weight
    save(tmp_path / "step", {"model": model.state_dict()})
    checkpoint = Checkpoint.open(tmp_path / "step")
    assert checkpoint.ties == {"model/head/weight": "model/embedding/weight"}
    assert "model/head/weight" not in checkpoint.arrays
    assert checkpoint.digest("model/head/weight") == checkpoint.digest("model/embedding/weight")
    back = load(tmp_path / "step", as_torch=True)["model"]
    assert back["head.weight"] is back["embedding.weight"]
    assert load(tmp_path / "step", only="model/head")["model"].keys() == {"head.weight", "head.bias"}


def test_views_of_one_buffer_that_differ_are_not_tied(tmp_path):
    buffer = torch.arange(6)
    state = {"a": buffer[:4], "b": buffer.view(2, 3), "c": buffer[:4].view(torch.float64), "d": buffer[:4]}
    save(tmp_path / "step", state)
    assert Checkpoint.open(tmp_path / "step").ties == {"d": "a"}
    back = load(tmp_path / "step", as_torch=True)
    assert all(torch.equal(state[key], back[key]) for key in state)


def test_a_mapping_that_makes_its_arrays_when_asked_is_not_taken_for_tied(tmp_path):
    class Lazy(dict):
        def items(self):
            return ((key, np.full(1000, value)) for key, value in super().items())

    save(tmp_path / "step", Lazy({str(i): i for i in range(20)}))
    assert [int(value[0]) for value in load(tmp_path / "step").values()] == list(range(20))


def test_an_optimizer_and_generators_go_on_as_if_never_stopped(tmp_path):
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

    def step():
        optimizer.zero_grad()
        noise = torch.from_numpy(generator.standard_normal((5, 4))).float() + random.random()
        model(noise + torch.randn(5, 4)).square().sum().backward()
        optimizer.step()
        return [parameter.detach().clone() for parameter in model.parameters()]

    generator = np.random.Generator(np.random.Philox(7))
    step()
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "rng": {
            "torch": torch.get_rng_state(),
            "python": random.getstate(),
            "numpy": generator.bit_generator.state,
        },
    }
    save(tmp_path / "step", state)
    expected = step()
    back = load(tmp_path / "step", as_torch=True)
    model.load_state_dict(back["model"])
    optimizer.load_state_dict(back["optimizer"])
    torch.set_rng_state(back["rng"]["torch"])
    random.setstate(back["rng"]["python"])
    generator.bit_generator.state = load(tmp_path / "step", only="rng/numpy")["rng"]["numpy"]
    assert all(map(torch.equal, expected, step()))


def test_subclasses_come_back_as_what_they_extend(tmp_path):
    state = OrderedDict(size=torch.Size([2, 3]), parameter=torch.nn.Parameter(torch.ones(2)))
    save(tmp_path / "step", state)
    back = load(tmp_path / "step", as_torch=True)
    assert (type(back), back["size"], type(back["parameter"])) == (dict, (2, 3), torch.Tensor)


def test_attributes_are_read_without_arrays_and_keep_what_json_lacks(tmp_path):
    attributes = {
        "step": 7,
        "loss": math.inf,
        "betas": (0.9, 0.95),
        "nested": {"$odd": {1: "x"}},
        "huge": 2**200,
    }
    save(tmp_path / "step", {}, attributes=attributes)
    assert same(Checkpoint.open(tmp_path / "step").attributes, attributes)


def test_paths_are_those_that_a_person_expects(tmp_path):
    state = {
        "model": {"blocks.3.mixer.A_log": np.ones(2)},
        "optimizer": {"state": {0: {"exp_avg": np.ones(2)}}},
        "rng": [np.ones(1)],
    }
    save(tmp_path / "step", state)
    expected = ["model/blocks/3/mixer/A_log", "optimizer/state/0/exp_avg", "rng/0"]
    assert list(Checkpoint.open(tmp_path / "step").arrays) == expected


@pytest.mark.parametrize(
    "state",
    [
        {"a.b": 1, "a": {"b": 2}},
        {"a": 1, "a.b": 2},
        {"a.b": 1, "a": 2},
        {"A": 1, "a": 2},
        {"A.x": 1, "a.y": 2},
        {"": 1, ".": 2, "%": 3, "a~": 4},
        {"w" * 300: 1, "w" * 299 + "x": 2, "__w": 3, "../../w": 4, "\ud800": 5},
        {1: 1, "1": 2},
    ],
    ids=repr,
)
def test_keys_that_would_share_a_path_each_get_their_own(tmp_path, state):
    def fill(value):
        return (
            {key: fill(item) for key, item in value.items()} if isinstance(value, dict) else np.full(2, value)
        )

    save(tmp_path / "run/step", fill(state))
    assert same(fill(state), load(tmp_path / "run/step"))
    names = list(Checkpoint.open(tmp_path / "run/step").arrays)
    assert len({name.casefold() for name in names}) == len(names)
    assert not any(other.startswith(f"{name}/") for name in names for other in names)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_only_loads_what_is_asked_and_says_what_is_not_there(tmp_path):
    state = {"model": {"a.w": np.ones(1), "b.w": np.zeros(1)}, "step": 3, "rng": {"x": (np.ones(1), 2)}}
    save(tmp_path / "step", state)
    assert load(tmp_path / "step", only=["model/a", "step"]).keys() == {"model", "step"}
    assert load(tmp_path / "step", only="model/a")["model"].keys() == {"a.w"}
    assert same(load(tmp_path / "step", only="rng")["rng"], state["rng"])
    with pytest.raises(UnknownNameError, match=r"nothing at 'modl'. Did you mean 'model'"):
        load(tmp_path / "step", only="modl")


def spoil(path, name, chunk=0):
    """Change the first byte of one chunk of an array."""
    with Checkpoint.open(path) as checkpoint:
        stored = checkpoint.manifest.arrays[name]
    pack = path / stored.extents[0].pack
    content = bytearray(pack.read_bytes())
    content[stored.extents[0].offset + chunk * stored.layout.chunk_bytes] ^= 1
    pack.write_bytes(content)


def test_only_reads_nothing_of_what_is_not_asked(tmp_path):
    save(tmp_path / "step", {"a": np.ones(1), "b": np.ones(1)})
    spoil(tmp_path / "step", "b")
    assert load(tmp_path / "step", only="a")["a"].tolist() == [1.0]


BIG = 3 * CHUNK_BYTES


def small_chunks(monkeypatch, nbytes):
    """Cut arrays above so many bytes, as large ones are."""
    monkeypatch.setattr("helix_kernel.checkpoint.layout.CHUNK_BYTES", nbytes)
    _layout.cache_clear()


@pytest.mark.parametrize(
    "shape", [(BIG // 4000 + 1, 1000), (BIG // 4 + 3,), (3, BIG // 8, 1), (2, 3, BIG // 16)]
)
def test_large_arrays_are_cut_into_chunks_of_the_limit_with_little_padding(tmp_path, shape):
    array = np.random.default_rng(0).random(shape, np.float32)
    layout = Layout.of(array.shape, array.dtype)
    assert layout.n_shards == 1
    assert layout.chunk_bytes <= CHUNK_BYTES
    assert layout.stored_bytes < 1.01 * array.nbytes
    save(tmp_path / "step", {"x": array})
    assert same(load(tmp_path / "step")["x"], array)


@pytest.mark.parametrize(
    "index",
    [
        3,
        -1,
        slice(2, 5),
        slice(None, None, -2),
        slice(5, 2),
        (4, 1),
        (slice(3), 2),
        ...,
        (np.array([1, 3]), 0),
        (),
    ],
)
def test_a_lazy_array_indexes_as_the_array_does(tmp_path, monkeypatch, index):
    small_chunks(monkeypatch, 100)
    array = np.arange(70, dtype=np.int32).reshape(7, 10)
    save(tmp_path / "step", {"x": array})
    lazy = Checkpoint.open(tmp_path / "step")["x"]
    assert (lazy.shape, lazy.dtype) == (array.shape, array.dtype)
    np.testing.assert_array_equal(lazy[index], array[index])
    np.testing.assert_array_equal(np.asarray(lazy), array)


def test_a_slice_reads_only_the_chunks_it_needs(tmp_path, monkeypatch):
    small_chunks(monkeypatch, 100)
    save(tmp_path / "step", {"x": np.arange(70, dtype=np.int32).reshape(7, 10)})
    for chunk in (0, 1, 3):
        spoil(tmp_path / "step", "x", chunk)
    with Checkpoint.open(tmp_path / "step") as checkpoint:
        assert checkpoint["x"][2, 0] == 20
        with pytest.raises(CheckpointError, match="part of array 'x', were changed"):
            checkpoint["x"][3]


def test_an_array_that_is_not_there_is_an_error_with_the_nearest_name(tmp_path):
    save(tmp_path / "step", {"weight": np.ones(1)})
    with pytest.raises(UnknownNameError, match=r"no array 'wieght'. Did you mean 'weight'"):
        Checkpoint.open(tmp_path / "step")["wieght"]


CYCLE: dict = {}
CYCLE["again"] = CYCLE


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": {"b": object()}}, "state 'a/b' is a builtins.object; allowed are arrays"),
        ({"a": b"raw"}, "state 'a' is a builtins.bytes"),
        ({"a": {(1, 2): 0}}, r"state 'a' has the key \(1, 2\); allowed are str and int"),
        ({True: 0}, "has the key True"),
        ({"a": np.array(["x"])}, "state 'a' has dtype <U1, which no checkpoint holds: bool"),
        ({"a": np.array([None])}, "state 'a' has dtype object"),
        ({"a": torch.ones(2).to_sparse()}, "state 'a' is a torch.sparse_coo tensor"),
        ({"a": torch.ones(2, device="meta")}, "on meta; allowed are dense tensors"),
        ({"a": torch.empty(2, dtype=torch.float4_e2m1fn_x2)}, "state 'a' has dtype torch.float4_e2m1fn_x2"),
        (CYCLE, "nested over 100 deep, or in itself"),
        ([1], "state is a list; allowed is a mapping"),
    ],
)
def test_what_no_checkpoint_holds_is_named_and_leaves_nothing(tmp_path, state, message):
    with pytest.raises(ArgumentError, match=message):
        save(tmp_path / "step", state)
    assert not list(tmp_path.iterdir())


def test_an_array_among_attributes_is_an_error(tmp_path):
    with pytest.raises(ArgumentError, match="attribute 'x' is an array; arrays belong in the state"):
        save(tmp_path / "step", {}, attributes={"x": np.ones(1)})


def test_any_dlpack_object_is_an_array(tmp_path):
    class Foreign:
        def __init__(self, array):
            self.__dlpack__, self.__dlpack_device__ = array.__dlpack__, array.__dlpack_device__

    save(tmp_path / "step", {"x": Foreign(np.arange(3))})
    assert load(tmp_path / "step")["x"].tolist() == [0, 1, 2]


def test_every_document_is_plain_json(tmp_path):
    save(tmp_path / "step", {"nan": math.nan, "x": np.ones(1), "bf": ml_dtypes.bfloat16(1)})
    for document in (tmp_path / "step").rglob("*.json"):
        json.loads(document.read_text(), parse_constant=pytest.fail)
