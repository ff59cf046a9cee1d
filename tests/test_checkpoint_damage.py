"""A checkpoint is there whole or not at all, and every damage is found and named."""

import json
import resource
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parent))
from torture import bit_flips
from torture.states import LostError

from helix_kernel.checkpoint import load, save
from helix_kernel.checkpoint.durable import sweep
from helix_kernel.checkpoint.manifest import MANIFEST, seal
from helix_kernel.errors import CheckpointError, IncompatibleCheckpointError

STATE = {"model": {"w": np.arange(300.0), "b": np.ones(3)}, "step": 4}


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    return bit_flips.Victim(tmp_path_factory.mktemp("victim") / "step")


@pytest.fixture(scope="module")
def compressed(tmp_path_factory):
    return bit_flips.Victim(tmp_path_factory.mktemp("compressed") / "step", compressed=True)


@settings(max_examples=500, deadline=None)
@given(data=st.data(), is_compressed=st.booleans())
def test_every_flipped_bit_is_found_and_its_array_named(victim, compressed, data, is_compressed):
    victim = compressed if is_compressed else victim
    file, low, high = victim.regions()[data.draw(st.sampled_from(sorted(victim.regions())))]
    bit_flips.check_flip(victim, file, data.draw(st.integers(low, high - 1)), data.draw(st.integers(0, 7)))


def test_the_regions_of_flipped_bits_are_all_bytes_of_a_checkpoint(victim):
    spans = sorted((file.name, low, high) for file, low, high in victim.regions().values())
    sizes = {path.name: path.stat().st_size for path in victim.path.iterdir()}
    for (file, _, end), (other, start, _) in pairwise(spans):
        assert (end, start) == (sizes[file], 0) if file != other else end == start
    assert spans[-1][2] == sizes[spans[-1][0]]


class AnyDigest(str):
    """Equals every digest."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False


def test_without_digests_the_harness_finds_what_is_missed(victim, monkeypatch):
    monkeypatch.setattr("helix_kernel.checkpoint.fetch.digest_of", lambda _: AnyDigest())
    with pytest.raises(LostError, match=r"verify.. does not see it"):
        bit_flips.check_flip(victim, victim.pack, 100, 3)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (
            lambda path: path.unlink(),
            "data-00000.bin, part of array 'model/w', is missing",
        ),
        (
            lambda path: path.write_bytes(path.read_bytes()[:99]),
            r"array 'model/w', has 99 bytes of 2460 \(truncated\)",
        ),
        (
            lambda path: path.write_bytes(path.read_bytes()[:2450]),
            r"array 'model/b', has 2450 bytes of 2460 \(truncated\)",
        ),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), r"has 2461 bytes of 2460 \(grown\)"),
    ],
)
def test_a_missing_or_cut_pack_is_an_error_even_unverified(tmp_path, harm, message, verify):
    save(tmp_path / "step", STATE)
    harm(tmp_path / "step/data-00000.bin")
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / "step", verify=verify)


def test_a_truncated_manifest_is_an_error(tmp_path):
    save(tmp_path / "step", STATE)
    manifest = tmp_path / "step" / MANIFEST
    for length in (0, 1, 50):
        manifest.write_bytes(manifest.read_bytes()[:length])
        with pytest.raises(CheckpointError, match=r"manifest\.json is truncated or was changed"):
            load(tmp_path / "step")


def test_a_later_format_is_refused_by_name(tmp_path):
    save(tmp_path / "step", STATE)
    manifest = tmp_path / "step" / MANIFEST
    document = json.loads(manifest.read_bytes())
    del document["xxh3"]
    document["helix"]["version"] = 4
    manifest.write_bytes(seal(json.dumps(document).encode()))
    with pytest.raises(
        IncompatibleCheckpointError, match=r"format 4; this helix-kernel reads up to 3: upgrade"
    ):
        load(tmp_path / "step")


def test_what_is_no_checkpoint_is_said_to_be_none(tmp_path):
    (tmp_path / "file").write_text("")
    cases = {"nowhere": "does not exist", "file": "is a file", ".": r"has no manifest\.json"}
    for name, message in cases.items():
        with pytest.raises(CheckpointError, match=message):
            load(tmp_path / name)


def test_a_checkpoint_is_never_written_over(tmp_path):
    save(tmp_path / "step", {"x": 1})
    with pytest.raises(CheckpointError, match="exists; a checkpoint is never written over"):
        save(tmp_path / "step", {"x": 2})
    assert load(tmp_path / "step") == {"x": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["step"]


def test_of_two_writers_of_one_path_one_wins_whole(tmp_path, monkeypatch):
    from helix_kernel.checkpoint import directory

    write = directory.write_file

    def overtaken(path, content):
        monkeypatch.setattr(directory, "write_file", write)
        save(tmp_path / "step", {"x": "first"})
        write(path, content)

    monkeypatch.setattr(directory, "write_file", overtaken)
    with pytest.raises(CheckpointError, match="not empty"):
        save(tmp_path / "step", {"x": "second"})
    assert load(tmp_path / "step") == {"x": "first"}
    assert [path.name for path in tmp_path.iterdir()] == ["step"]


def test_a_disk_that_refuses_leaves_nothing_and_is_named(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(
            CheckpointError, match=r"cannot write checkpoint .*step: File too large; nothing was left"
        ):
            save(tmp_path / "step", {"small": np.ones(3), "large": np.ones(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_a_parent_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"cannot write checkpoint .*file/step"):
        save(tmp_path / "file/step", {})


def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("helix_kernel.checkpoint.directory.write_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path / "step", STATE)
    assert not list(tmp_path.iterdir())


def test_every_file_and_directory_is_on_the_disk_before_the_rename(tmp_path, monkeypatch):
    import os
    from pathlib import Path

    synced, fsync, rename = [], os.fsync, Path.rename

    def record(descriptor):
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    def check(source, target):
        everything = {str(path) for path in source.rglob("*")} | {str(source)}
        assert everything <= set(synced)
        synced.clear()
        return rename(source, target)

    monkeypatch.setattr(os, "fsync", record)
    monkeypatch.setattr(Path, "rename", check)
    save(tmp_path / "step", STATE)
    assert synced == [str(tmp_path)]


def test_what_a_living_writer_has_hidden_is_not_swept(tmp_path):
    from helix_kernel.checkpoint.durable import new_directory

    with new_directory(tmp_path / "step") as hidden:
        assert sweep(tmp_path) == []
        assert hidden.is_dir()
    dead = tmp_path / ".helix-tmp-step-00000003-0badcafe"
    dead.mkdir()
    (dead / "zarr.json").write_text("{")
    assert sweep(tmp_path) == [dead]
    assert [path.name for path in tmp_path.iterdir()] == ["step"]
