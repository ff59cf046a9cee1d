"""Checkpoints in an object store: what a directory gives, in every kind of store."""

import sys
from datetime import timedelta

import numpy as np
import obstore
import pytest
import zarr
from obstore.store import MemoryStore, from_url

from helix_kernel.checkpoint import Checkpoint, CheckpointManager, load, load_into, object_run, resolve, save
from helix_kernel.checkpoint.as_zarr import zarr_store
from helix_kernel.checkpoint.location import locate
from helix_kernel.checkpoint.object_step import NewObjects
from helix_kernel.errors import ArgumentError, CheckpointError, DependencyError

STATE = {"model": {"w": np.arange(3_000_000.0).reshape(3000, 1000), "b": np.ones(3)}, "step": 4}


@pytest.fixture(params=["s3", "memory"])
def run(request):
    """The place of a run's checkpoints, in each kind of store."""
    return request.getfixturevalue("bucket") if request.param == "s3" else MemoryStore()


def store_of(run):
    return from_url(run, client_options={"allow_http": True}) if isinstance(run, str) else run


def keys(run):
    return sorted(found["path"] for found in obstore.list(store_of(run)).collect())


def pack_of(run, step):
    (key,) = (key for key in keys(run) if key.startswith(f"step-{step:08d}/data-"))
    return key


def state(step):
    return {"w": np.full(3, step), "step": step}


def test_a_state_comes_back_whole_in_part_in_place_and_by_slice(run):
    path = CheckpointManager(run).save(7, STATE, attributes={"lr": 0.1})
    assert (path.name, str(path).rpartition("/")[2]) == ("step-00000007", "step-00000007")
    loaded = load(path)
    assert np.array_equal(loaded["model"]["w"], STATE["model"]["w"])
    assert loaded["step"] == 4
    assert list(load(path, only="model/b")["model"]) == ["b"]
    assert load(path, mmap=True, verify=False)["model"]["b"].tolist() == [1, 1, 1]
    target = {"model": {"w": np.zeros((3000, 1000)), "b": np.zeros(3)}, "step": 0}
    load_into(path, target)
    assert np.array_equal(target["model"]["w"], STATE["model"]["w"])
    with Checkpoint.open(path) as checkpoint:
        assert checkpoint.attributes == {"lr": 0.1}
        assert checkpoint["model/w"][2000:2002, 5].tolist() == [2_000_005, 2_001_005]
        checkpoint.verify()


def test_what_is_compressed_comes_back_from_a_store_and_its_damage_is_found(run):
    path = CheckpointManager(run, compression="bitshuffle-lz4").save(7, STATE)
    with Checkpoint.open(path) as checkpoint:
        checkpoint.verify()
        info = checkpoint.arrays["model/w"]
        assert info.compression == "bitshuffle-lz4"
        assert checkpoint["model/w"][2000:2002, 5].tolist() == [2_000_005, 2_001_005]
        (size,) = checkpoint.manifest.packs.values()
    assert np.array_equal(load(path)["model"]["w"], STATE["model"]["w"])
    assert np.array_equal(load(path, mmap=True, verify=False)["model"]["w"], STATE["model"]["w"])
    assert np.array_equal(
        zarr.open_group(zarr_store(path), mode="r")["model/w"][17:19], STATE["model"]["w"][17:19]
    )
    store, key = store_of(run), pack_of(run, 7)
    content = bytearray(obstore.get(store, key).bytes().to_bytes())
    assert info.stored_bytes <= len(content) == size < STATE["model"]["w"].nbytes / 2
    content[size // 2] ^= 1
    obstore.put(store, key, bytes(content))
    with pytest.raises(
        CheckpointError, match="part of array 'model/w', were changed: its checksum is another"
    ):
        load(path, verify=False)


def test_an_address_may_be_text_a_store_or_a_place_in_one(bucket):
    save(f"{bucket}/step-00000001", state(1))
    store = from_url(bucket, client_options={"allow_http": True})
    place = CheckpointManager(store).path(1)
    for address in (f"{bucket}/step-00000001", f"{bucket}/step-00000001/", place, resolve(store)):
        assert load(address)["step"] == 1
    assert str(resolve(bucket)) == f"{bucket}/step-00000001"
    assert str(resolve(bucket.removesuffix("/checkpoints"))) == f"{bucket}/step-00000001"


def test_a_file_url_is_a_directory(tmp_path):
    save(f"file://{tmp_path}/a%20step", state(1))
    assert load(tmp_path / "a step")["step"] == 1


def test_zarr_reads_the_packs(run):
    path = CheckpointManager(run).save(1, STATE)
    group = zarr.open_group(zarr_store(path), mode="r")
    assert np.array_equal(group["model/w"][17:19], STATE["model"]["w"][17:19])
    assert group["model/b"][:].tolist() == [1, 1, 1]


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda _: None, r"data-00000-\w+\.bin, part of array 'model/b', is missing"),
        (lambda content: content[:99], r"part of array 'model/b', has 99 bytes of \d+ \(truncated\)"),
        (lambda content: content + b"x", r"has \d+ bytes of \d+ \(grown\)"),
    ],
)
def test_a_missing_or_cut_pack_is_an_error_even_unverified(run, harm, message, verify):
    path = CheckpointManager(run).save(1, {"model": {"b": np.ones(90)}})
    store, key = store_of(run), pack_of(run, 1)
    content = harm(obstore.get(store, key).bytes().to_bytes())
    obstore.delete(store, key) if content is None else obstore.put(store, key, content)
    with pytest.raises(CheckpointError, match=message):
        load(path, verify=verify)


def test_a_flipped_byte_is_found_and_its_array_named(run):
    manager = CheckpointManager(run, keep=None)
    manager.save(1, STATE)
    path = manager.save(2, STATE)
    store, key = store_of(run), pack_of(run, 2)
    sound = obstore.get(store, key).bytes().to_bytes()
    for position, owner in ((0, "model/w"), (9_000_000, "model/w"), (len(sound) - 1, "model/b")):
        content = bytearray(sound)
        content[position] ^= 1
        obstore.put(store, key, bytes(content))
        with pytest.raises(CheckpointError, match=r"data-00000-\w+\.bin|what follows") as caught:
            Checkpoint.open(path).verify()
        assert f"array '{owner}'" in str(caught.value)
        assert "step-00000002" in str(caught.value)
    assert manager.latest() == 1
    assert str(resolve(run)) == str(manager.path(1))
    obstore.put(store, "step-00000002/manifest.json", b"{}")
    with pytest.raises(CheckpointError, match=r"manifest\.json is truncated or was changed"):
        load(path)


def test_a_step_without_a_manifest_does_not_exist(run):
    manager = CheckpointManager(run)
    assert (manager.steps(), manager.latest()) == ([], None)
    manager.save(1, state(1))
    path = manager.save(2, state(2))
    obstore.delete(store_of(run), "step-00000002/manifest.json")
    assert (manager.steps(), manager.latest()) == ([1], 1)
    with pytest.raises(CheckpointError, match=r"is no checkpoint: it has no manifest\.json"):
        load(path)
    with pytest.raises(CheckpointError, match=r"has no step 2; it has \[1\]"):
        manager.load(2)
    manager.save(2, state(2))
    assert manager.load()["step"] == 2


def test_a_place_with_nothing_in_it_is_said_to_hold_nothing(run):
    with pytest.raises(CheckpointError, match="holds no checkpoint; allowed are"):
        resolve(run)


def test_only_the_newest_stay_and_the_manifest_goes_first(run):
    with CheckpointManager(run, keep=2) as manager:
        for step in range(4):
            manager.save(step, state(step))
        assert manager.steps() == [2, 3]
        left = [key for key in keys(run) if key.startswith("step-00000001")]
        assert [key.partition("/")[2][:10] for key in left] == ["data-00000"]  # a reader may be at it
    assert {key.partition("/")[0] for key in keys(run)} == {"step-00000002", "step-00000003"}
    assert len(keys(run)) == 4


def test_a_reader_that_opened_a_step_reads_on_while_it_is_removed(run):
    manager = CheckpointManager(run, keep=1)
    with Checkpoint.open(manager.save(1, STATE)) as checkpoint:
        manager.save(2, state(2))
        assert manager.steps() == [2]
        checkpoint.verify()


def test_a_damaged_step_is_replaced_and_a_good_one_is_not(run):
    manager = CheckpointManager(run)
    manager.save(2, state(1))
    obstore.put(store_of(run), pack_of(run, 2), b"short")
    manager.save(2, state(2))
    with pytest.raises(CheckpointError, match="step-00000002 exists and is good"):
        manager.save(2, state(3))
    with pytest.raises(CheckpointError, match="step-00000002 exists"):
        save(manager.path(2), state(3))
    manager.close()
    assert len(keys(run)) == 2
    assert manager.load(2)["w"].tolist() == [2, 2, 2]


def test_steps_are_written_in_the_background_and_whole(run):
    with CheckpointManager(run, async_=True, incremental=True) as manager:
        for step in (1, 2):
            manager.save(step, state(step))
    assert manager.load()["w"].tolist() == [2, 2, 2]
    obstore.delete(store_of(run), [key for key in keys(run) if key.startswith("step-00000001")])
    assert manager.load()["w"].tolist() == [2, 2, 2]


def test_of_two_writers_of_one_step_one_wins_whole(run, monkeypatch):
    path = CheckpointManager(run).path(1)
    write = NewObjects.write_manifest

    def overtaken(self, content):
        monkeypatch.setattr(NewObjects, "write_manifest", write)
        save(path, {"x": np.ones(3)})
        write(self, content)

    monkeypatch.setattr(NewObjects, "write_manifest", overtaken)
    with pytest.raises(CheckpointError, match="step-00000001 exists: another writer was first"):
        save(path, {"x": np.zeros(3)})
    assert load(path)["x"].tolist() == [1, 1, 1]
    assert len(keys(run)) == 2


def test_what_dead_writers_left_is_swept_when_it_is_old_or_when_asked(run, monkeypatch):
    store = store_of(run)
    dead = "step-00000001/data-00000-0badcafe.bin"
    obstore.put(store, dead, b"x")
    manager = CheckpointManager(run)
    manager.save(2, state(2))
    manager.close()
    assert dead in keys(run)  # it may be a living writer's
    assert locate(run).run().sweep() == []
    assert locate(run).run().sweep(timedelta(0)) == [dead]
    obstore.put(store, dead, b"x")
    monkeypatch.setattr(object_run, "DEAD_AFTER", timedelta(0))
    manager.save(3, state(3))
    assert dead not in keys(run)
    assert manager.steps() == [2, 3]


def test_a_url_that_names_no_place_is_refused_with_the_schemes_that_are_allowed():
    with pytest.raises(
        ArgumentError, match=r"begins with abf://; allowed are s3, s3a, gs, .* Did you mean 'abfs'"
    ):
        load("abf://bucket/run")
    with pytest.raises(ArgumentError, match=r"'s3://' names no place: .*; write s3://bucket/path"):
        save("s3://", {})
    with pytest.raises(ArgumentError, match="7 is no place for checkpoints; allowed are a path, a URL"):
        load(7)


def test_without_obstore_the_command_that_installs_it_is_named(monkeypatch):
    for module in [name for name in sys.modules if name.startswith("helix_kernel.checkpoint.object_")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(DependencyError, match=r"pip install 'helix-kernel\[objects\]'"):
        load("s3://bucket/run")


def test_obstore_is_imported_for_object_stores_alone(tmp_path, python):
    save(tmp_path / "step", {})
    code = f"import sys; from helix_kernel.checkpoint import load; load({str(tmp_path / 'step')!r}); "
    assert python(code + "print('obstore' in sys.modules)") == "False"


def test_the_command_line_takes_urls(bucket, helix):
    CheckpointManager(bucket).save(3, state(3), attributes={"step": 3})
    code, printed, _ = helix("checkpoint", "inspect", bucket)
    assert code == 0
    assert printed.startswith(f"{bucket}/step-00000003: 1 arrays")
