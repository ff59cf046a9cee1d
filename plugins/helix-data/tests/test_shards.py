"""Shards on disk: written whole or not at all, and checked to the byte."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ingesting import contents, documents_of, ingested, json_lines

from helix_data.ingestion import run
from helix_data.shards.index import load_index
from helix_data.shards.stream import ShardStream
from helix_data.shards.verification import damage
from helix_data.shards.writing import AtomicFile, ShardWriter, write_atomically
from helix_kernel.errors import HelixError

TEXTS = [f"{number} " * number for number in range(1, 40)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    ingested(folder / "out", [json_lines(folder / "a.jsonl", TEXTS)], shard_bytes=500)
    return folder / "out"


def test_a_file_has_its_name_only_once_the_disk_has_it(tmp_path, monkeypatch):
    happened = []
    sync, replace = os.fsync, Path.replace

    def record_sync(descriptor):
        happened.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        sync(descriptor)

    def record_replace(path, target):
        happened.append(f"{path.name} becomes {target.name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(Path, "replace", record_replace)
    write_atomically(tmp_path / "a", b"content")
    partial = f".a.{os.getpid()}.partial"
    assert happened == [f"sync {partial}", f"{partial} becomes a", f"sync {tmp_path.name}"]
    assert contents(tmp_path) == {"a": b"content"}


def test_a_file_that_is_abandoned_leaves_what_was_there(tmp_path):
    write_atomically(tmp_path / "a", b"before")
    file = AtomicFile(tmp_path / "a")
    file.write(b"x" * 3_000_000)
    file.abandon()
    assert contents(tmp_path) == {"a": b"before"}


def test_a_shard_without_documents_is_no_shard(tmp_path):
    assert ShardWriter(tmp_path, "a").close() is None
    assert contents(tmp_path) == {}


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_change_of_any_file_is_found_and_the_file_is_named(tmp_path_factory, shards, data):
    folder = tmp_path_factory.mktemp("damaged")
    shutil.copytree(shards, folder / "out")
    index = load_index(shards)
    assert list(damage(folder / "out", index)) == []
    path = data.draw(st.sampled_from(sorted((folder / "out").glob("train-*"))))
    content = bytearray(path.read_bytes())
    change = data.draw(st.sampled_from(["flip", "cut", "grow", "remove"]))
    if change == "flip":
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    elif change == "cut":
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content += b"x"
    path.unlink() if change == "remove" else path.write_bytes(content)
    found = list(damage(folder / "out", index))
    assert len(found) == 1
    assert found[0].startswith(f"{path.name}: ")


@given(starts=st.lists(st.integers(0, 1500), max_size=6), width=st.integers(1, 900))
@settings(max_examples=40, deadline=None)
def test_windows_are_copied_across_shards(shards, starts, width):
    index = load_index(shards)
    assert len(index.train) > 3
    text = b"".join(documents_of(shards, index.train))
    stream = ShardStream(shards, index.train)
    begins = {0, *np.cumsum([len(t) for t in TEXTS]).tolist()}
    starts = [start for start in starts if start + width <= len(text)]
    windows = stream.gather(np.array(starts, dtype=np.int64), width)
    firsts = stream.document_starts(np.array(starts, dtype=np.int64), width)
    assert [row.tobytes() for row in windows] == [text[start : start + width] for start in starts]
    assert [row.tolist() for row in firsts] == [
        [place in begins for place in range(start, start + width)] for start in starts
    ]
    assert stream.read(3, len(text) - 3).tobytes() == text[3:-3]


def test_a_disk_that_is_full_when_the_index_is_written_is_said(tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    file = json_lines(tmp_path / "a.jsonl", ["abc"])
    with monkeypatch.context() as patch:
        patch.setattr(run, "write_atomically", full)
        with pytest.raises(
            HelixError, match=r"cannot be written: No space left on device; .*run the same again"
        ):
            ingested(tmp_path / "out", [file])
    ingested(tmp_path / "out", [file])
    assert sorted(contents(tmp_path / "out")) == [
        "index.json",
        "train-000000-000000.bytes",
        "train-000000-000000.ends",
    ]


def test_what_a_killed_writer_left_is_removed(tmp_path):
    file = json_lines(tmp_path / "a.jsonl", TEXTS)
    shards = tmp_path / "out"
    ingested(shards, [file], shard_bytes=500)
    for name in (
        ".train-000000-000001.bytes.7.partial",
        ".index.json.7.partial",
        "train-000009-000000.bytes",
    ):
        (shards / name).write_bytes(b"left")
    (shards / "notes.txt").write_text("the user's own")
    kept = set(contents(shards))
    ingested(shards, [file], shard_bytes=500)
    assert kept - set(contents(shards)) == {
        ".train-000000-000001.bytes.7.partial",
        ".index.json.7.partial",
        "train-000009-000000.bytes",
    }
    assert list(damage(shards, load_index(shards))) == []
