"""Compressed arrays: chosen where it pays, the same to every reader, never decompressed when damaged."""

import json
import re
import struct
import threading
from contextlib import suppress
from types import SimpleNamespace

import google_crc32c
import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_kernel.checkpoint import (
    Checkpoint,
    CheckpointManager,
    choosing,
    compression,
    layout,
    load,
    load_into,
    parts,
    safetensors_file,
    save,
    zarr_store,
)
from helix_kernel.checkpoint.arrays import sample
from helix_kernel.checkpoint.convert import convert
from helix_kernel.checkpoint.export import export
from helix_kernel.checkpoint.layout import Layout
from helix_kernel.checkpoint.manifest import MANIFEST, seal
from helix_kernel.cli import main
from helix_kernel.errors import ArgumentError, CheckpointError

LZ4 = "bitshuffle-lz4"
FLOAT = np.dtype("<f4")


def rng():
    return np.random.default_rng(0)


def noise(*shape):
    """Bits that nothing can compress."""
    return rng().integers(0, 2**32, shape, np.uint32)


def state():
    """Three arrays that shrink, one of them of three chunks, and one that does not."""
    return {
        "weight": rng().standard_normal((2201, 1000), np.float32),
        "moment": np.where(rng().random((500, 300)) < 0.1, 1e-8, 0),
        "bias": torch.zeros(4000, dtype=torch.bfloat16),
        "noise": noise(1500, 1000),
    }


def same(left, right):
    return all(
        torch.as_tensor(left[name]).equal(torch.as_tensor(right[name])) for name in {*left, *right} - {"step"}
    )


@pytest.fixture(scope="module")
def step(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "step"
    save(path, state(), compression=LZ4)
    return path


def pack_of(path):
    return path / "data-00000.bin"


def stored(checkpoint):
    return {name: info.compression for name, info in checkpoint.arrays.items()}


def test_what_shrinks_is_compressed_and_what_does_not_is_stored_as_it_is(step):
    with Checkpoint.open(step) as checkpoint:
        assert stored(checkpoint) == {"weight": LZ4, "moment": LZ4, "bias": LZ4, "noise": None}
        infos = checkpoint.arrays
        assert infos["noise"].nbytes < infos["noise"].stored_bytes < infos["noise"].nbytes + 100
        assert infos["weight"].stored_bytes < 0.93 * infos["weight"].nbytes
        assert infos["moment"].stored_bytes < 0.3 * infos["moment"].nbytes
        assert infos["bias"].stored_bytes < 0.02 * infos["bias"].nbytes
        sizes = sum(info.stored_bytes for info in infos.values())
    assert 0 <= pack_of(step).stat().st_size - sizes < 4 * 64


def test_without_an_array_that_shrinks_the_checkpoint_is_what_it_is_without_compression(tmp_path):
    for name, how in (("plain", None), ("compressed", LZ4)):
        save(tmp_path / name, {"noise": noise(300, 100), "n": np.float32(2)}, compression=how)
    plain, compressed = (tmp_path / name for name in ("plain", "compressed"))
    for file in (MANIFEST, "data-00000.bin"):
        assert (plain / file).read_bytes() == (compressed / file).read_bytes()
    assert json.loads((plain / MANIFEST).read_bytes())["helix"]["version"] == 2


def test_a_reader_that_knows_no_compression_sees_a_later_version(step):
    document = json.loads((step / MANIFEST).read_bytes())
    root = json.loads(document["refs"]["zarr.json"])["attributes"]["helix"]
    assert document["helix"]["version"] == root["version"] == 3


def test_compression_is_off_unless_it_is_asked_for(tmp_path):
    save(tmp_path / "step", {"zeros": np.zeros(9000)})
    with CheckpointManager(tmp_path / "run") as manager:
        paths = [tmp_path / "step", manager.save(1, {"zeros": np.zeros(9000)})]
    for path in paths:
        with Checkpoint.open(path) as checkpoint:
            assert stored(checkpoint) == {"zeros": None}


@pytest.mark.parametrize("give", [lambda p: save(p, {}, compression="bitshufle-lz4"), None])
def test_a_compression_that_is_unknown_is_refused_by_name(tmp_path, give):
    with pytest.raises(
        ArgumentError, match=r"'bitshufle-lz4'; allowed are bitshuffle-lz4, and None.*Did you"
    ):
        give(tmp_path / "x") if give else CheckpointManager(tmp_path, compression="bitshufle-lz4")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{}, {"verify": False}, {"mmap": True}, {"as_torch": True}])
def test_it_is_loaded_as_it_was(step, options):
    assert same(load(step, **{"as_torch": True, **options}), state())


def test_what_is_not_compressed_still_maps_and_what_is_becomes_memory(step):
    mapped = load(step, mmap=True, verify=False)
    assert mapped["noise"].base is not None
    assert mapped["weight"].base is None
    mapped["weight"][0] = 7
    assert same(load(step, as_torch=True), state())


def test_it_is_read_into_arrays_that_exist_in_part_and_by_tree(step):
    target = {name: torch.full_like(torch.as_tensor(value), 7) for name, value in state().items()}
    load_into(step, target)
    assert same(target, state())
    assert list(load(step, only="moment")) == ["moment"]


def test_a_slice_reads_the_chunks_that_hold_it_and_no_more(step, monkeypatch):
    read = []
    with Checkpoint.open(step) as checkpoint:
        real = checkpoint._packs.read_into
        monkeypatch.setattr(
            checkpoint._packs, "read_into", lambda *args: (read.append(len(args[2])), real(*args))
        )
        extent = checkpoint.manifest.arrays["weight"].extents[0]
        found = checkpoint["weight"][2190:2200, 5]
    assert np.array_equal(found, state()["weight"][2190:2200, 5])
    assert len(set(extent.lengths)) == 3
    assert read == [extent.lengths[2]]


def test_zarr_opens_it_by_name(step):
    group = zarr.open(zarr_store(step), mode="r")
    assert same(
        {name: np.asarray(group[name]) for name in ("weight", "moment", "noise")},
        {name: value for name, value in state().items() if name != "bias"},
    )
    codecs = group["weight"].metadata.to_dict()["codecs"][0]["configuration"]["codecs"]
    assert [codec["name"] for codec in codecs] == ["bytes", "blosc", "crc32c"]


def test_zarr_sees_a_flipped_bit_in_a_large_array_by_its_checksum(tmp_path):
    save(tmp_path / "step", state(), compression=LZ4)
    harm(pack_of(tmp_path / "step"), 100_000)
    with pytest.raises(ValueError, match="checksum"):
        zarr.open(zarr_store(tmp_path / "step"), mode="r")["weight"][:]


@pytest.mark.parametrize("name", ["x.zarr", "x.zip", "x.safetensors"])
def test_every_export_holds_it_and_comes_back(step, tmp_path, name):
    with Checkpoint.open(step) as checkpoint:
        export(checkpoint, tmp_path / name)
        digests = {info.name: info.digest for info in checkpoint.arrays.values()}
    if name.endswith((".zarr", ".zip")):
        store = zarr.storage.ZipStore(tmp_path / name) if name.endswith("zip") else tmp_path / name
        found = zarr.open(store, mode="r")["weight"]
        assert np.array_equal(found[...], state()["weight"])
        assert found.nbytes_stored() < 0.93 * found.nbytes
    else:
        document = json.loads(safetensors_file.read(tmp_path / name)[1]["helix"])
        assert document["digests"] == digests
    convert(tmp_path / name, tmp_path / "plain")
    convert(tmp_path / name, tmp_path / "compressed", compression=LZ4)
    for path, how in (("plain", None), ("compressed", LZ4)):
        with Checkpoint.open(tmp_path / path) as checkpoint:
            checkpoint.verify()
            assert {info.name: info.digest for info in checkpoint.arrays.values()} == digests
            assert stored(checkpoint)["weight"] == how


def harm(path, offset):
    content = bytearray(path.read_bytes())
    content[offset] ^= 16
    path.write_bytes(content)


@pytest.mark.parametrize("verify", [True, False])
def test_damage_is_found_before_it_is_decompressed_even_unverified(tmp_path, monkeypatch, verify):
    save(tmp_path / "step", {"a": np.ones(9), "weight": state()["weight"]}, compression=LZ4)
    harm(pack_of(tmp_path / "step"), 5_000_000)
    unfolded = []
    real = compression.decompress
    monkeypatch.setattr(
        "helix_kernel.checkpoint.fetch.decompress", lambda *args: (unfolded.append(len(args[1])), real(*args))
    )
    with pytest.raises(
        CheckpointError, match="part of array 'weight', were changed: its checksum is another"
    ):
        load(tmp_path / "step", only="weight", verify=verify)
    assert len(unfolded) <= 2, "of three chunks, only those that are whole"


@pytest.mark.parametrize("verify", [True, False])
def test_a_chunk_that_was_cut_short_is_refused(tmp_path, verify):
    save(tmp_path / "step", {"w": np.zeros(9000)}, compression=LZ4)
    pack = pack_of(tmp_path / "step")
    pack.write_bytes(pack.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"array 'w', has \d+ bytes of \d+ \(truncated\)"):
        load(tmp_path / "step", verify=verify)


def test_other_data_under_a_right_checksum_are_found_by_the_digest(tmp_path):
    for name, value in (("ones", 1.0), ("twos", 2.0)):
        save(tmp_path / name, {"w": np.full(9000, value)}, compression=LZ4)
    sizes = [pack_of(tmp_path / name).stat().st_size for name in ("ones", "twos")]
    assert sizes[0] == sizes[1]
    pack_of(tmp_path / "ones").write_bytes(pack_of(tmp_path / "twos").read_bytes())
    with pytest.raises(CheckpointError, match="part of array 'w', were changed after they were written"):
        load(tmp_path / "ones")


def test_an_index_that_is_other_than_the_chunks_is_found(step, tmp_path):
    save(tmp_path / "step", {"weight": state()["weight"]}, compression=LZ4)
    harm(pack_of(tmp_path / "step"), -9)
    load(tmp_path / "step")  # goes by the manifest
    with (
        Checkpoint.open(tmp_path / "step") as checkpoint,
        pytest.raises(CheckpointError, match="what follows array 'weight'"),
    ):
        checkpoint.verify()


@settings(max_examples=250, deadline=None)
@given(data=st.data(), itemsize=st.sampled_from([1, 2, 4, 8, 16]), kind=st.sampled_from(["zeros", "steps"]))
def test_no_bytes_under_a_right_checksum_crash_the_decoder_or_leave_its_buffer(data, itemsize, kind):
    n = data.draw(st.integers(1, 4000)) * itemsize
    content = np.zeros(n, np.uint8) if kind == "zeros" else (np.arange(n) // 7).astype(np.uint8)
    frame = bytearray(compression.compress(content, itemsize)[:-4])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, min(len(frame), 64) - 1) | st.integers(0, len(frame) - 1))
        frame[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del frame[data.draw(st.integers(16, max(16, len(frame) - 1))) :]
        struct.pack_into("<I", frame, 12, len(frame))
    checksum = struct.pack("<I", google_crc32c.value(bytes(frame)))
    memory = np.full(n + 64, 0xAB, np.uint8)
    with suppress(ValueError):
        compression.decompress(compression.frame_of(memoryview(bytes(frame) + checksum), n), memory.data[:n])
    assert (memory[n:] == 0xAB).all()


def test_a_frame_that_claims_more_than_its_array_is_refused_before_anything_is_allocated(tmp_path):
    big = compression.compress(np.zeros(2**22, np.uint8), 8)
    with pytest.raises(ValueError, match=f"it claims {2**22} bytes of 4096, compressed to"):
        compression.frame_of(memoryview(big), 4096)


@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
@pytest.mark.parametrize("n", [75_300, 262_145, 894_785])
def test_elements_that_are_no_multiple_of_eight_shrink_as_much_as_others(n, dtype):
    values = rng().standard_normal(n).astype(np.float32).astype(dtype)
    shares = [
        len(compression.compress(part.view(np.uint8), part.itemsize)) / part.nbytes
        for part in (values, values[: n // 8 * 8])
    ]
    assert shares[0] < shares[1] + 0.01 < 0.93


@pytest.mark.parametrize("nbytes", [16, 4096, 2**18, 2**18 + 8, 2**22, 2**22 - 24, 2**25 + 8])
def test_nothing_unfolds_to_as_much_as_readers_refuse(nbytes):
    assert nbytes < compression.MOST_UNFOLDED * len(compression.compress(np.zeros(nbytes, np.uint8), 8))
    worst = compression.compress(noise(nbytes // 4).view(np.uint8), 4)
    assert len(worst) <= compression.most_stored_bytes(nbytes)


def test_a_version_that_does_not_belong_to_what_is_stored_is_refused(tmp_path):
    save(tmp_path / "step", {"w": np.arange(3)})
    document = json.loads((tmp_path / "step" / MANIFEST).read_bytes())
    del document["xxh3"]
    document["helix"]["version"] = 3
    (tmp_path / "step" / MANIFEST).write_bytes(seal(json.dumps(document, separators=(",", ":")).encode()))
    with pytest.raises(CheckpointError, match="do not belong together"):
        Checkpoint.open(tmp_path / "step")


def test_incremental_saves_leave_each_array_in_the_form_that_it_has(tmp_path):
    first = state()
    for step, how in ((1, LZ4), (2, None), (3, LZ4)):
        with CheckpointManager(tmp_path, keep=None, incremental=True, compression=how) as manager:
            manager.save(step, first | {"step": np.zeros(99) + step})
    with Checkpoint.open(manager.path(3)) as checkpoint:
        assert stored(checkpoint) == {"weight": LZ4, "moment": LZ4, "bias": LZ4, "noise": None, "step": LZ4}
        checkpoint.verify()
    with Checkpoint.open(manager.path(2)) as checkpoint:
        assert stored(checkpoint)["step"] is None
    assert same(manager.load(3, as_torch=True), first)
    packs = [{path.name: path.stat().st_ino for path in manager.path(n).glob("*.bin")} for n in (1, 3)]
    assert packs[1]["step-00000001.data-00000.bin"] == packs[0]["data-00000.bin"]


def test_a_manager_in_the_background_compresses_and_retention_goes_on(tmp_path):
    threads = set()
    real = compression.compress

    def spy(*args):
        threads.add(threading.current_thread())
        return real(*args)

    with (
        pytest.MonkeyPatch.context() as patch,
        CheckpointManager(tmp_path, keep=2, async_=True, compression=LZ4) as manager,
    ):
        patch.setattr(choosing, "compress", spy)
        patch.setattr("helix_kernel.checkpoint.parts.compress", spy)
        for step in (1, 2, 3):
            manager.save(step, state() | {"step": step})
        manager.wait()
    assert threading.main_thread() not in threads
    assert manager.steps() == [2, 3]
    assert same(manager.load(as_torch=True), state())


def test_trying_looks_at_all_parts_of_a_large_array():
    for half in (slice(2_000_000), slice(2_000_000, None), slice(1_000_000, 3_000_000)):
        array = noise(4_000_000)
        array[half] = 0
        tried, became = choosing.trial(array, array.dtype)
        assert 0.4 < became / tried < 0.6
    tried, became = choosing.trial(noise(4_000_000), np.dtype("<u4"))
    assert tried == 2**20
    assert not choosing.is_worthwhile(tried, became)


@pytest.mark.parametrize(
    "value",
    [
        np.arange(6000, dtype=np.int32).reshape(60, 100),
        np.arange(6000, dtype=np.int32).reshape(60, 100).T,
        np.arange(6000, dtype=np.int32).reshape(2, 3000)[:, ::-1],
        np.arange(6000, dtype=np.int32).reshape(1, 3, 20, 100).transpose(0, 2, 1, 3),
        torch.arange(6000, dtype=torch.int32).reshape(100, 60).T,
    ],
    ids=["plain", "transposed", "reversed", "nested", "torch"],
)
def test_a_sample_is_of_whole_elements_of_the_array_spread_over_it(value):
    found = np.concatenate([*sample(value, np.dtype("<i4"), 8, 400)]).view(np.int32)
    assert 400 <= len(found) <= 800
    assert len(set(found.tolist())) == len(found)
    assert found.min() < 3000 <= found.max()
    assert len(np.concatenate([*sample(value, np.dtype("<i4"), 8, 3000)])) == 24_000


def test_a_layout_of_chunks_beyond_what_blosc_counts_is_not_compressed(monkeypatch):
    monkeypatch.setattr(layout, "MOST_BYTES", 100)
    assert Layout.of((5, 5), FLOAT).compressed(LZ4).compression == LZ4
    assert Layout.of((6, 5), FLOAT).compressed(LZ4).compression is None


def test_zeros_and_not_what_memory_held_fill_the_last_chunk(tmp_path, monkeypatch):
    full = SimpleNamespace(**vars(np) | {"empty": lambda n, dtype: np.full(n, 7, dtype)})
    monkeypatch.setattr(parts, "np", full)
    save(tmp_path / "step", {"weight": state()["weight"]}, compression=LZ4)
    with Checkpoint.open(tmp_path / "step") as checkpoint:
        array = checkpoint.manifest.arrays["weight"]
        (extent,) = array.extents
        frame = pack_of(tmp_path / "step").read_bytes()[sum(extent.lengths[:2]) : sum(extent.lengths)]
    chunk = np.empty(array.layout.chunk_bytes, np.uint8)
    compression.decompress(compression.frame_of(memoryview(frame), len(chunk)), chunk.data)
    assert array.layout.shard_shape == (2202, 1000)
    assert not chunk[-4000:].any()
    assert chunk[:-4000].any()


def test_the_index_says_that_chunks_beyond_the_array_hold_nothing(monkeypatch):
    monkeypatch.setattr(layout, "CHUNK_BYTES", 16)
    layout._layout.cache_clear()
    cut = Layout.of((7, 4), FLOAT, (4, 4)).compressed(LZ4)
    layout._layout.cache_clear()
    lengths = [30, 31, 32]
    tail = cut.compressed_tail(lengths)
    assert cut.chunk_counts == (4, 3)
    assert struct.unpack("<8Q", tail[:-4]) == (0, 30, 30, 31, 61, 32, 2**64 - 1, 2**64 - 1)
    assert struct.unpack("<I", tail[-4:]) == (google_crc32c.value(tail[:-4]),)


def test_a_pack_takes_no_more_of_the_disk_than_it_has_bytes(step):
    found = pack_of(step).stat()
    assert found.st_blocks * 512 < found.st_size + 2**16


def helix(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["checkpoint", *map(str, arguments)])
    return ended.value.code


def test_inspect_shows_what_is_stored_and_how(step, capsys):
    assert helix("inspect", step) == 0
    shown = capsys.readouterr().out
    assert re.search(r"4 arrays, 15\.3 MiB, stored in 13\.\d MiB", shown)
    assert re.search(r"bias +\(4000,\) +bfloat16 +7\.8 KiB +\d+ B +bitshuffle-lz4", shown)
    assert shown.count("bitshuffle-lz4") == 3
    assert helix("inspect", step, "--json") == 0
    arrays = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["arrays"]}
    assert arrays["noise"]["compression"] is None
    assert arrays["weight"]["compression"] == LZ4
    assert arrays["weight"]["stored_bytes"] < arrays["weight"]["bytes"] == 8_804_000


def test_convert_compresses_what_it_is_told_to(step, tmp_path, capsys):
    save(tmp_path / "plain", state())
    assert helix("convert", tmp_path / "plain", tmp_path / "small", "--compression", LZ4) == 0
    assert helix("diff", tmp_path / "small", step) == 0
    assert "They hold the same." in capsys.readouterr().out
    with Checkpoint.open(tmp_path / "small") as checkpoint:
        assert stored(checkpoint)["weight"] == LZ4
