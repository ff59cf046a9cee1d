"""A cache changes how often something is decoded, and nothing else."""

from __future__ import annotations

import logging
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import attrs
import pytest
import torch
from other_datasets import Decoding, Whole

from helix_data.caching.cached import Cached
from helix_data.caching.store import Counts, Store
from helix_kernel import default_kernel
from helix_kernel.build import Factory
from helix_kernel.component import Component
from helix_kernel.config.resolve import Resolved

KEY = "0123456789"


def factory(target, *, version="1", **options):
    component = Component(
        name="other", target=f"other_datasets:{target.__name__}", kind="dataset", version=version
    )
    return Factory(Resolved(component, {"scale": 1} | options))


def cached(target, path, **options):
    return Cached(data=factory(target, **options), path=str(path))


def entries(path):
    return sorted(path.glob("??/*"))


def test_a_sample_is_decoded_once_whatever_the_epoch_and_the_seed(tmp_path):
    dataset = cached(Decoding, tmp_path)
    for seed in (0, 1):
        for step in range(9):
            place = {"seed": seed, "step": step}
            assert torch.equal(dataset.batch(**place).inputs, Decoding().batch(**place).inputs)
    assert dataset.n_decoded == dataset.n_rows
    assert dataset.counts == Counts(hits=30, misses=6)


def test_another_run_finds_what_one_has_decoded(tmp_path):
    for decoded in (6, 0):
        dataset = cached(Decoding, tmp_path)
        for step in range(3):
            dataset.batch(seed=0, step=step)
        assert dataset.n_decoded == decoded


def test_a_batch_in_one_piece_is_kept_by_its_place(tmp_path):
    places = [(0, 0, 0, 1), (1, 0, 0, 1), (0, 1, 0, 1), (0, 0, 0, 2), (0, 0, 1, 2)]
    for _ in range(2):
        dataset = cached(Whole, tmp_path)
        for place in places:
            given = dict(zip(("seed", "step", "rank", "world_size"), place, strict=True))
            assert dataset.batch(**given).tolist() == list(place)
    assert dataset.n_made == 0


@pytest.mark.parametrize("other", [{"scale": 2}, {"version": "2"}], ids=["option", "version"])
def test_with_another_option_or_version_nothing_is_found(tmp_path, other):
    cached(Whole, tmp_path).batch(seed=0, step=1)
    dataset = cached(Whole, tmp_path, **other)
    assert torch.equal(dataset.batch(seed=0, step=1), factory(Whole, **other)().batch(seed=0, step=1))
    assert dataset.n_made == 1


def test_with_another_fingerprint_nothing_is_found(tmp_path, monkeypatch):
    cached(Whole, tmp_path).batch(seed=0, step=1)
    monkeypatch.setattr(Whole, "fingerprint", "of another corpus")
    dataset = cached(Whole, tmp_path)
    dataset.batch(seed=0, step=1)
    assert dataset.n_made == 1


def test_batches_to_be_measured_on_are_made_once(tmp_path):
    for made in (3, 0, 0):
        dataset = cached(Whole, tmp_path)
        assert [int(batch[0]) for batch in dataset.evaluation_batches()] == [0, 1, 2]
        assert dataset.n_made == made


def test_an_evaluation_that_was_broken_off_or_lost_a_batch_is_made_whole(tmp_path):
    list(islice(cached(Whole, tmp_path).evaluation_batches(), 2))
    for _ in range(2):
        assert len(list(cached(Whole, tmp_path).evaluation_batches())) == 3
        entries(tmp_path)[0].unlink()
    assert [int(batch[0]) for batch in cached(Whole, tmp_path).evaluation_batches()] == [0, 1, 2]


def test_it_is_otherwise_the_dataset(tmp_path):
    dataset = cached(Decoding, tmp_path)
    assert (dataset.seq_len, dataset.batch_size, dataset.fingerprint) == (4, 2, "decoding")
    assert dataset.describe() == f"numbers; cached in {tmp_path}"
    assert not hasattr(dataset, "evaluation_batches")
    assert not hasattr(dataset, "held_out")


def test_a_copy_in_another_process_uses_the_same_cache(tmp_path):
    dataset = pickle.loads(pickle.dumps(cached(Decoding, tmp_path)))
    dataset.batch(seed=0, step=0)
    again = pickle.loads(pickle.dumps(dataset))
    again.batch(seed=0, step=0)
    assert again.counts.hits == dataset.counts.hits + 2


@pytest.mark.parametrize("place", [0, 20, 60, -1], ids=str)
@pytest.mark.parametrize("how", ["flipped", "cut"])
def test_a_damaged_entry_is_noticed_told_and_made_anew(tmp_path, caplog, place, how):
    cached(Whole, tmp_path).batch(seed=3, step=4)
    (entry,) = entries(tmp_path)
    content = bytearray(entry.read_bytes())
    content[place] ^= 1
    entry.write_bytes(content if how == "flipped" else content[:place])
    dataset = cached(Whole, tmp_path)
    with caplog.at_level(logging.WARNING):
        assert dataset.batch(seed=3, step=4).tolist() == [3, 4, 0, 1]
    assert dataset.counts == Counts(misses=1, damaged=1)
    assert f"{entry} is damaged and is made anew" in caplog.text
    assert cached(Whole, tmp_path).batch(seed=3, step=4).tolist() == [3, 4, 0, 1]


def test_what_was_used_longest_ago_goes_first(tmp_path):
    store = Store(tmp_path, max_bytes=20_000)
    for number in range(40):
        store.put(f"{number:05}", torch.zeros(1000, dtype=torch.uint8))
        past = time.time() - 1000 + number
        os.utime(tmp_path / f"{number:05}"[:2] / f"{number:03}.sample", (past, past))
        assert sum(entry.stat().st_size for entry in entries(tmp_path)) <= 20_000
        assert number == 0 or store.get("00000") is not None
    assert store.get("00001") is None
    assert store.get("00039") is not None


def test_what_somebody_did_not_finish_is_removed_in_the_end(tmp_path):
    store = Store(tmp_path, max_bytes=2**20)
    folder = tmp_path / "00"
    folder.mkdir()
    old, new = folder / "a.1.unfinished", folder / "b.2.unfinished"
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (0, 0))
    store.put(KEY, 1)
    assert (old.exists(), new.exists()) == (False, True)


@pytest.mark.parametrize(
    "value", [torch.zeros(2**20), range(2), lambda: None], ids=["large", "range", "function"]
)
def test_what_cannot_be_kept_is_counted_and_told(tmp_path, caplog, value):
    store = Store(tmp_path, max_bytes=2**20)
    store.put(KEY, value)
    assert store.counts == Counts(unwritten=1)
    assert "a sample cannot be kept" in caplog.text
    assert store.get(KEY) is None


def test_a_disk_that_takes_nothing_stops_nobody(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    dataset = cached(Whole, tmp_path / "file")
    assert dataset.batch(seed=1, step=2).tolist() == [1, 2, 0, 1]
    assert dataset.counts == Counts(misses=1, unwritten=1)
    assert "cannot be kept" in caplog.text


class Harmful:
    def __reduce__(self):
        return os.system, ("false",)


def test_an_entry_runs_no_code_of_its_writers(tmp_path, caplog):
    from helix_data.caching import store as module

    store = Store(tmp_path, max_bytes=2**20)
    place = store._place(KEY)
    place.parent.mkdir()
    place.write_bytes(module._encode(Harmful()))
    assert store.get(KEY) is None
    assert store.counts.damaged == 1
    assert "no record of arrays" in caplog.text


def test_many_may_write_and_read_at_once(tmp_path):
    def use(number):
        store = Store(tmp_path, max_bytes=60_000)
        for round_ in range(60):
            key = f"{(number + round_) % 20:04}"
            found = store.get(key)
            if found is not None:
                assert found.tolist() == [int(key)] * 1000
            store.put(key, torch.full((1000,), int(key), dtype=torch.int16))
        return store.counts

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(use, range(4)))
    assert sum(counts.damaged for counts in together) == 0
    assert sum(counts.hits for counts in together) > 0


@attrs.frozen
class Sample:
    inputs: torch.Tensor


def test_records_of_every_usual_kind_are_kept(tmp_path):
    store = Store(tmp_path, max_bytes=2**20)
    value = {"a": [1, 2.5, "text", None, (True,)], "b": Sample(torch.ones(3, dtype=torch.bfloat16))}
    store.put(KEY, value)
    found = store.get(KEY)
    assert found["a"] == value["a"]
    assert torch.equal(found["b"].inputs, value["b"].inputs)


def test_the_kernel_builds_it_over_another_dataset(tmp_path):
    corpus = tmp_path / "corpus.txt"
    corpus.write_bytes(bytes(range(256)) * 20)
    table = {"use": "text-bytes", "paths": [str(corpus)], "seq_len": 16, "batch_size": 2}
    kernel = default_kernel()
    plain = kernel.build("dataset", table)
    dataset = kernel.build("dataset", {"use": "cached", "path": str(tmp_path / "cache"), "data": table})
    for _ in range(2):
        assert torch.equal(dataset.batch(seed=1, step=2).inputs, plain.batch(seed=1, step=2).inputs)
    assert dataset.counts == Counts(hits=1, misses=1)
    assert dataset.held_out().tolist() == plain.held_out().tolist()
