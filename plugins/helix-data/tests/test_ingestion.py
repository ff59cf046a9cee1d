"""An ingestion: its shards, resuming, corrupt records, duplicates and splits."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ingesting import Quiet, contents, documents_of, ingested, json_lines

from helix_data.ingestion.chunks import document_hash, split_of
from helix_data.ingestion.duplicates import repeated
from helix_data.ingestion.journal import Journal
from helix_data.ingestion.progress import IngestProgress
from helix_data.shards.index import IngestOptions, load_index
from helix_data.shards.verification import damage
from helix_kernel.errors import DataError, HelixError

documents = st.lists(st.text("ab", max_size=3), max_size=12)


@pytest.fixture(scope="module", autouse=True)
def _quick_disk():
    """Waiting for the disk is most of what small shards cost; that it is done is tested in test_shards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture
def corpus(tmp_path):
    """Five files of documents of many lengths; some are the same, in a file and across files."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(5):
        words = [f"{number if n % 3 else 'any'} {n} " * (1 + n % 17) for n in range(300)]
        json_lines(folder / f"{number}.jsonl", words)
    return folder


def texts_of(corpus):
    lines = [line for file in sorted(corpus.iterdir()) for line in file.read_text().splitlines()]
    return [json.loads(line)["text"].encode() for line in lines]


def test_shards_hold_the_documents_in_order_and_are_closed_when_they_are_full(tmp_path, corpus):
    index = ingested(tmp_path / "out", [corpus], shard_bytes=10_000)
    assert documents_of(tmp_path / "out", index.train) == texts_of(corpus)
    assert len(index.train) >= 10
    assert all(shard.bytes < 10_000 + 200 for shard in index.train)
    assert index == load_index(tmp_path / "out")
    assert list(damage(tmp_path / "out", index)) == []
    assert {file.name: file.sha256 for file in index.files} == {
        str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(corpus.iterdir())
    }


@pytest.mark.parametrize(("terminator", "end"), [("none", b""), ("newline", b"\n"), ("nul", b"\0")])
def test_a_terminator_ends_each_document(tmp_path, terminator, end):
    file = json_lines(tmp_path / "a.jsonl", ["one", "", "two"])
    index = ingested(tmp_path / "out", [file], terminator=terminator)
    assert documents_of(tmp_path / "out", index.train) == [b"one" + end, b"two" + end]
    assert (index.files[0].documents, index.files[0].empty) == (2, 1)


OPTIONS = {"shard_bytes": 7000, "dedup": True, "validation_fraction": 0.2, "salt": "x"}


def test_any_number_of_workers_gives_the_same_bytes(tmp_path, corpus):
    for workers in (1, 3):
        ingested(tmp_path / str(workers), [corpus], workers=workers, **OPTIONS)
    one, *others = (contents(tmp_path / str(workers)) for workers in (1, 3))
    assert len(one) > 20
    assert all(other == one for other in others)


class StopAfterError(Exception):
    pass


class StopAfter(Quiet):
    def __init__(self, count):
        super().__init__()
        self.left = count

    def advance(self, advance):
        super().advance(advance)
        self.left -= 1
        if self.left < 0:
            raise StopAfterError


@given(stops=st.lists(st.integers(0, 12), max_size=4))
@settings(max_examples=8, deadline=None)
def test_an_ingestion_that_is_stopped_anywhere_ends_with_the_same_bytes(tmp_path_factory, stops):
    folder = tmp_path_factory.mktemp("stopped")
    file = json_lines(folder / "a.jsonl", [f"{n % 40} " * 20 for n in range(200)])
    more = json_lines(folder / "b.jsonl", [f"{n % 50} " * 20 for n in range(200)])
    options = {"shard_bytes": 2000, "dedup": True, "validation_fraction": 0.3}
    ingested(folder / "whole", [file, more], **options)
    for count in stops:
        with contextlib.suppress(StopAfterError):
            ingested(folder / "out", [file, more], watcher=StopAfter(count), **options)
    ingested(folder / "out", [file, more], **options)
    assert contents(folder / "out") == contents(folder / "whole")


def test_what_is_finished_is_not_read_again(tmp_path, corpus):
    with pytest.raises(StopAfterError):
        ingested(tmp_path / "out", [corpus], watcher=StopAfter(10), **OPTIONS)
    size = sum(file.stat().st_size for file in corpus.iterdir())
    watcher = Quiet()
    ingested(tmp_path / "out", [corpus], watcher=watcher, **OPTIONS)
    assert size * 0.2 < watcher.done < size
    assert watcher.done + sum(advance.read for advance in watcher.advances) == size


@pytest.mark.parametrize("workers", [1, 2])
def test_an_ingestion_that_is_killed_ends_with_the_same_bytes(tmp_path, monkeypatch, workers):
    monkeypatch.setenv("HELIX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus").mkdir()
    for number in range(4):
        json_lines(tmp_path / f"corpus/{number}.jsonl", [f"{number} {n % 1700} " * 30 for n in range(2000)])
    words = ["--shard-bytes=50000", "--dedup", "--validation-fraction=0.1", f"--workers={workers}"]
    command = [sys.executable, "-m", "helix_kernel.cli", "data", "ingest", "out", "corpus", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        until(lambda: len(list((tmp_path / "out").glob(".ingest/chunk-*"))) >= 5)
        process.send_signal(signal.SIGKILL)
        process.stderr.read()  # ends when the workers have ended too, which nobody has told to
    assert not (tmp_path / "out/index.json").exists()
    options = {"shard_bytes": 50_000, "dedup": True, "validation_fraction": 0.1}
    for folder in ("out", "whole"):
        watcher = Quiet()
        ingested(Path(folder), ["corpus"], watcher=watcher, **options)
        assert (watcher.done > 0) == (folder == "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_a_folder_that_is_finished_is_left_as_it_is(tmp_path, corpus):
    ingested(tmp_path / "out", [corpus], **OPTIONS)
    before = contents(tmp_path / "out")
    watcher = Quiet()
    assert ingested(tmp_path / "out", [corpus], watcher=watcher, **OPTIONS) == load_index(tmp_path / "out")
    assert (contents(tmp_path / "out"), watcher.advances) == (before, [])


@pytest.mark.parametrize("finished", [False, True])
def test_another_ingestion_into_a_folder_is_refused_unless_it_restarts(tmp_path, corpus, finished):
    with contextlib.suppress(StopAfterError):
        ingested(tmp_path / "out", [corpus], watcher=StopAfter(10_000 if finished else 5), **OPTIONS)
    with pytest.raises(HelixError, match="--restart"):
        ingested(tmp_path / "out", [corpus])
    ingested(tmp_path / "out", [corpus], restart=True)
    ingested(tmp_path / "new", [corpus])
    assert contents(tmp_path / "out") == contents(tmp_path / "new")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"salt": "y"}, "salt was 'x' and is 'y' now"),
        ({"paths": 4}, r"4.jsonl was among its files"),
        ({"touch": True}, r"0.jsonl has changed since"),
    ],
)
def test_what_differs_from_an_ingestion_that_was_begun_is_said(tmp_path, corpus, change, words):
    with pytest.raises(StopAfterError):
        ingested(tmp_path / "out", [corpus], watcher=StopAfter(5), **OPTIONS)
    if change.pop("touch", False):
        os.utime(corpus / "0.jsonl", ns=(1, 1))
    paths = sorted(corpus.iterdir())[: change.pop("paths", 5)]
    with pytest.raises(DataError, match=f"begun here and is not finished, but .*{words}.*--restart"):
        ingested(tmp_path / "out", paths, **OPTIONS | change)


def test_a_finished_folder_of_files_that_changed_is_said(tmp_path, corpus):
    ingested(tmp_path / "out", [corpus])
    text = (corpus / "3.jsonl").read_text()
    (corpus / "3.jsonl").write_text(text.replace("any", "ANY"))
    with pytest.raises(HelixError, match=r"3\.jsonl has changed since; .*--restart"):
        ingested(tmp_path / "out", [corpus])


def test_a_folder_of_other_things_is_refused_and_left_alone(tmp_path, corpus):
    with pytest.raises(DataError, match="is not empty, and holds no shards; name a new folder"):
        ingested(corpus, [corpus])
    assert len(list(corpus.iterdir())) == 5


def test_two_ingestions_at_once_into_a_folder_are_refused(tmp_path, corpus):
    class Second(Quiet):
        def begin(self, **_):
            with pytest.raises(DataError, match="another ingestion is at work here"):
                ingested(tmp_path / "out", [corpus])
            self.notes.append("refused")

    watcher = Second()
    ingested(tmp_path / "out", [corpus], watcher=watcher)
    assert watcher.notes == ["refused"]


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path, corpus):
    class Changing(Quiet):
        def advance(self, advance):
            with (corpus / "4.jsonl").open("a") as file:
                file.write('{"text": "more"}\n')

    with pytest.raises(DataError, match=r"4.jsonl: was changed while it was read; .*--restart"):
        ingested(tmp_path / "out", [corpus], shard_bytes=1000, watcher=Changing())


@pytest.fixture
def flawed(tmp_path):
    folder = tmp_path / "flawed"
    folder.mkdir()
    for name in "ab":
        lines = ['{"text": "good"}', "{", '{"text": 1}', f'{{"text": "{name}"}}']
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize("workers", [1, 2])
def test_a_corrupt_record_ends_an_ingestion_and_is_named(tmp_path, flawed, workers):
    with pytest.raises(DataError, match=r"[ab]\.jsonl: line 2: is not JSON: .*; .*--on-error skip"):
        ingested(tmp_path / "out", [flawed], workers=workers, shard_bytes=1)
    assert not (tmp_path / "out/index.json").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_corrupt_records_that_may_be_skipped_are_counted_and_named(tmp_path, flawed, workers):
    watcher = Quiet()
    index = ingested(
        tmp_path / "out",
        [flawed],
        on_error="skip",
        max_skipped=4,
        workers=workers,
        shard_bytes=1,
        watcher=watcher,
    )
    assert documents_of(tmp_path / "out", index.train) == [b"good", b"a", b"good", b"b"]
    assert [file.skipped for file in index.files] == [2, 2]
    assert index.skipped == 4
    named = [json.loads(line) for line in (tmp_path / "out/skipped.jsonl").read_text().splitlines()]
    assert [(record["file"][-7:], record["place"]) for record in named] == [
        (f"{name}.jsonl", f"line {line}") for name in "ab" for line in (2, 3)
    ]
    assert named[1]["reason"] == "'text' is a number, not text"
    assert sorted(said for advance in watcher.advances for said in advance.skipped) == [
        f"{record['file']}: {record['place']}: {record['reason']}" for record in named
    ]


@pytest.mark.parametrize("workers", [1, 2])
def test_more_corrupt_records_than_may_be_skipped_end_an_ingestion(tmp_path, flawed, workers):
    for _ in range(2):  # those of an earlier try count too
        with pytest.raises(DataError, match=r"4 corrupt records, and at most 3 may be skipped"):
            ingested(
                tmp_path / "out", [flawed], on_error="skip", max_skipped=3, workers=workers, shard_bytes=1
            )


def test_files_without_a_document_are_an_error(tmp_path):
    (tmp_path / "a.jsonl").write_text("{\n\n")
    with pytest.raises(DataError, match="no document was found in 1 files: 1 corrupt records, 0 empty"):
        ingested(tmp_path / "out", [tmp_path / "a.jsonl"], on_error="skip")


def test_a_full_disk_ends_an_ingestion_that_can_go_on(tmp_path, corpus, monkeypatch):
    def full(self, task, number, chunk):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", full)
        with pytest.raises(
            HelixError, match=r"cannot be written: No space left on device; .*run the same again"
        ):
            ingested(tmp_path / "out", [corpus])
    ingested(tmp_path / "out", [corpus])
    ingested(tmp_path / "new", [corpus])
    assert contents(tmp_path / "out") == contents(tmp_path / "new")


@given(files=st.lists(documents, min_size=1, max_size=4), shard_bytes=st.integers(1, 20))
@settings(max_examples=30, deadline=None)
def test_of_documents_that_are_the_same_the_first_is_kept(tmp_path_factory, files, shard_bytes):
    folder = tmp_path_factory.mktemp("same")
    paths = [json_lines(folder / f"{n}.jsonl", ["?", *texts]) for n, texts in enumerate(files)]
    index = ingested(folder / "out", paths, dedup=True, shard_bytes=shard_bytes)
    all_texts = [text.encode() for texts in files for text in ["?", *texts] if text]
    assert documents_of(folder / "out", index.train) == list(dict.fromkeys(all_texts))
    assert index.duplicates == len(all_texts) - len(set(all_texts))
    assert list(damage(folder / "out", index)) == []


@given(values=st.lists(st.integers(0, 30), min_size=1, max_size=60), cut=st.integers(0, 60))
@settings(max_examples=40, deadline=None)
def test_hashes_are_compared_in_buckets_of_any_size(tmp_path_factory, values, cut):
    folder = tmp_path_factory.mktemp("hashes")
    hashes = [hashlib.md5(str(value).encode(), usedforsecurity=False).digest() for value in values]
    cut = min(max(cut, 1), len(values))
    parts = [part for part in (hashes[:cut], hashes[cut:]) if part]
    paths = []
    for number, part in enumerate(parts):
        paths.append(folder / str(number))
        paths[-1].write_bytes(b"".join(part))
    expected = [value in values[:place] for place, value in enumerate(values)]
    for bucket in (1, 7, 1000):
        assert np.concatenate(repeated(paths, bucket=bucket)).tolist() == expected


def test_adding_files_moves_no_document_to_another_split(tmp_path, corpus):
    few = sorted(corpus.iterdir())[1:3]
    index = {
        name: ingested(tmp_path / name, paths, validation_fraction=0.3, shard_bytes=5000)
        for name, paths in {"few": few, "all": [corpus]}.items()
    }
    sides = {
        name: {
            split: set(documents_of(tmp_path / name, found.split(split))) for split in ("train", "validation")
        }
        for name, found in index.items()
    }
    for split in ("train", "validation"):
        assert len(sides["few"][split]) > 50
        assert sides["few"][split] < sides["all"][split]
    assert not sides["all"]["train"] & sides["all"]["validation"]


@given(
    data=st.binary(max_size=50), low=st.floats(0, 0.99), high=st.floats(0, 0.99), salt=st.text(max_size=80)
)
@settings(max_examples=200, deadline=None)
def test_a_larger_fraction_only_adds_to_the_validation_split(data, low, high, salt):
    low, high = sorted((low, high))
    digest = document_hash(data)
    sides = [split_of(digest, IngestOptions(validation_fraction=f, salt=salt)) for f in (low, high)]
    assert sides != ["validation", "train"]


def test_the_share_held_out_is_the_one_asked_for_and_the_salt_decides_which():
    digests = [document_hash(str(number).encode()) for number in range(20_000)]
    held_out = [
        {d for d in digests if split_of(d, IngestOptions(validation_fraction=0.1, salt=salt)) == "validation"}
        for salt in ("", "a")
    ]
    for chosen in held_out:
        assert abs(len(chosen) - 2000) < 200  # 4.7 standard deviations
    assert abs(len(held_out[0] & held_out[1]) - 200) < 70


def test_the_split_of_a_document_stays_what_it_was_in_earlier_releases():
    sides = [split_of(document_hash(bytes([n])), IngestOptions(validation_fraction=0.3)) for n in range(12)]
    assert "".join(side[0] for side in sides) == "ttvttttttvtv"


def test_progress_in_a_pipe_is_plain_lines(tmp_path, flawed, capsys):
    ingested(tmp_path / "out", [flawed], on_error="skip", watcher=IngestProgress())
    size = sum(file.stat().st_size for file in flawed.iterdir())
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == f"read {size} of {size} bytes (100%)  4 documents, 4 skipped"
    assert sum(line.startswith("skipped ") for line in lines) == 4
