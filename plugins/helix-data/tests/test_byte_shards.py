"""The dataset `byte-shards`: its order, its packings, its validation split, and shards that go away."""

from __future__ import annotations

import bisect
import inspect
import os
import pickle

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ingesting import documents_of, ingested, json_lines

from helix_data.byte_shards import ByteShards
from helix_data.config import ByteShardsConfig
from helix_data.shards.document_windows import DocumentWindows
from helix_data.shards.index import load_index
from helix_data.shards.stream import ShardStream
from helix_data.text_bytes import TextBytes
from helix_kernel.errors import ArgumentError, DataError

PACKINGS = ["stream", "packed", "documents"]
arguments = st.fixed_dictionaries({"seed": st.integers(0, 2**64 - 1), "step": st.integers(0, 10**9)})


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """300 documents of 1 to 90 bytes in some 20 shards, about a fifth of them held out."""
    folder = tmp_path_factory.mktemp("shards")
    rng = np.random.default_rng(0)
    texts = ["".join(map(chr, rng.integers(33, 127, n))) for n in rng.integers(1, 90, 300)]
    texts[10:14] = "abcd"  # documents of one byte, which have no target
    file = json_lines(folder / "a.jsonl", texts)
    ingested(folder / "out", [file], shard_bytes=700, validation_fraction=0.2)
    return folder / "out"


@pytest.fixture(scope="module")
def documents(shards):
    index = load_index(shards)
    assert len(index.train) > 8
    return {split: documents_of(shards, index.split(split)) for split in ("train", "validation")}


def dataset(shards, **options):
    return ByteShards(path=str(shards), **options)


@pytest.mark.parametrize("packing", PACKINGS)
@given(arguments=arguments, seq_len=st.integers(1, 120))
@settings(max_examples=20, deadline=None)
def test_ranks_share_the_batches_of_one_rank_in_order_and_of_arguments_alone(
    shards, packing, arguments, seq_len
):
    options = {"packing": packing, "seq_len": seq_len}
    whole = dataset(shards, batch_size=4, **options).batch(**arguments)
    for world_size in (1, 2, 4):
        used = dataset(shards, batch_size=4 // world_size, **options)
        used.batch(seed=1, step=3)
        ranks = [used.batch(rank=rank, world_size=world_size, **arguments) for rank in range(world_size)]
        for name in ("inputs", "targets", "mask"):
            if getattr(whole, name) is None:
                assert [getattr(batch, name) for batch in ranks] == [None] * world_size
            else:
                joined = torch.cat([getattr(batch, name) for batch in ranks])
                assert torch.equal(joined, getattr(whole, name))


@pytest.mark.parametrize("seq_len", [1, 7, 300, 2000])
def test_a_stream_of_shards_is_the_text_of_its_documents(shards, documents, tmp_path, seq_len):
    (tmp_path / "text").write_bytes(b"".join(documents["train"]))
    text = TextBytes(paths=[str(tmp_path / "text")], seq_len=seq_len, validation_fraction=0)
    for step in (0, 5, 10**6):
        found = dataset(shards, seq_len=seq_len).batch(seed=3, step=step)
        expected = text.batch(seed=3, step=step)
        assert torch.equal(found.inputs, expected.inputs)
        assert torch.equal(found.targets, expected.targets)
        assert found.mask is None
    assert found.inputs.dtype == torch.int64
    assert found.inputs.is_contiguous()


@given(seed=st.integers(0, 2**64 - 1), seq_len=st.integers(1, 400), first=st.integers(0, 5000))
@settings(max_examples=40, deadline=None)
def test_packed_masks_the_first_byte_of_each_document_and_nothing_else(
    shards, documents, seed, seq_len, first
):
    text = b"".join(documents["train"])
    begins = {0, *np.cumsum([len(document) for document in documents["train"]]).tolist()}
    packed = dataset(shards, seq_len=seq_len, packing="packed")
    starts = packed._order.spans(first, 6, seed=seed).starts.tolist()
    batch = packed.rows(first, 6, seed=seed)
    for row, start in enumerate(starts):
        assert bytes(batch.targets[row].tolist()) == text[start + 1 : start + 1 + seq_len]
        assert batch.mask[row].tolist() == [start + 1 + t not in begins for t in range(seq_len)]


@pytest.mark.parametrize("seq_len", [1, 16, 63, 64, 65, 200])
def test_an_epoch_of_documents_visits_every_target_of_every_document_once(shards, documents, seq_len):
    found = dataset(shards, seq_len=seq_len, batch_size=8, packing="documents")
    pairs = []
    for inputs, targets, mask in zip(*found.rows(0, found.windows_per_epoch, seed=5), strict=True):
        length = int(mask.sum())
        assert mask[:length].all()
        assert not inputs[
            length + 1 :
        ].any()  # the last byte is an input too, before a target that counts not
        assert not targets[length:].any()
        pairs.append((bytes(inputs[:length].tolist()), bytes(targets[:length].tolist())))
    expected = [
        (document[t : min(t + seq_len, len(document) - 1)], document[t + 1 : t + 1 + seq_len])
        for document in documents["train"]
        for t in range(0, len(document) - 1, seq_len)
    ]
    assert sorted(pairs) == sorted(expected)
    assert pairs != expected
    again = dataset(shards, seq_len=seq_len, packing="documents").rows(len(expected), 50, seed=5)
    assert not torch.equal(again.inputs, found.rows(0, 50, seed=5).inputs)


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=300), seq_len=st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_windows_of_documents_are_found_by_their_numbers(tmp_path_factory, lengths, seq_len):
    folder = tmp_path_factory.mktemp("windows")
    file = json_lines(folder / "a.jsonl", ["x" * length for length in lengths])
    index = ingested(folder / "out", [file], shard_bytes=400)
    stream = ShardStream(folder / "out", index.train)
    ends = np.cumsum(lengths).tolist()
    expected = [
        (end - length + t, min(seq_len, length - 1 - t))
        for end, length in zip(ends, lengths, strict=True)
        for t in range(0, length - 1, seq_len)
    ]
    windows = DocumentWindows(stream, seq_len=seq_len)
    assert len(windows) == len(expected)
    found = windows(np.arange(len(expected)))
    assert list(zip(found.starts.tolist(), found.lengths.tolist(), strict=True)) == expected


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("seq_len", [1, 2, 33, 64, 5000])
def test_each_held_out_target_is_measured_once_with_half_a_window_before_it(
    shards, documents, packing, seq_len
):
    text = b"".join(documents["validation"])
    begins = [0, *np.cumsum([len(document) for document in documents["validation"]]).tolist()]
    seen = []
    for inputs, targets, mask in dataset(shards, seq_len=seq_len, packing=packing).evaluation_batches():
        for row in range(len(inputs)):
            scored = torch.nonzero(mask[row]).flatten().tolist()
            seen += [(bytes(inputs[row, : t + 1].tolist()), targets[row, t].item()) for t in scored]
    if packing == "stream":
        places = range(1, len(text))
    else:
        places = [place for place in range(1, len(text)) if place not in begins]
    assert sorted(target for _, target in seen) == sorted(text[place] for place in places)
    assert len(seen) == len(places)
    for context, target in seen:
        assert context + bytes([target]) in text
    if packing != "documents":
        short = [context for context, _ in seen if len(context) < seq_len // 2]
        assert len(short) < max(seq_len // 2, 1)
    else:
        for (context, _), place in zip(seen, sorted(places), strict=True):
            begin = begins[bisect.bisect_right(begins, place - 1) - 1]
            assert len(context) >= min(place - begin, seq_len // 2)


def test_evaluation_of_a_stream_is_what_helix_train_does_with_held_out_bytes(shards):
    from helix_train.evaluation import evaluate, evaluate_batches

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(256, 8), torch.nn.GRU(8, 8, batch_first=True), Logits())
    found = dataset(shards, seq_len=48, batch_size=5)
    ours = evaluate_batches(model, found.evaluation_batches())
    theirs = evaluate(model, found.held_out(), seq_len=48, batch_size=5)
    assert ours.n_targets == theirs.n_targets == len(found.held_out()) - 1
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-6)


class Logits(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(8, 256)

    def forward(self, outputs):
        return self.linear(outputs[0])


def test_held_out_bytes_are_the_documents_of_the_validation_split(shards, documents):
    held_out = dataset(shards).held_out()
    assert held_out.tobytes() == b"".join(documents["validation"])
    assert not held_out.flags.writeable


def test_without_a_validation_split_nothing_is_held_out(tmp_path):
    ingested(tmp_path / "out", [json_lines(tmp_path / "a.jsonl", ["abc" * 100])])
    for packing in PACKINGS:
        found = dataset(tmp_path / "out", seq_len=8, packing=packing)
        assert (len(found.held_out()), list(found.evaluation_batches())) == (0, [])


def test_the_fingerprint_is_that_of_the_documents_and_reads_no_shard(tmp_path, shards):
    file = json_lines(tmp_path / "a.jsonl", ["abc" * 100, "d"])
    prints = {}
    for name, options in {
        "a": {},
        "same": {},
        "other": {"terminator": "nul"},
        "cut": {"shard_bytes": 10},
    }.items():
        ingested(tmp_path / name, [file], **options)
        prints[name] = dataset(tmp_path / name, seq_len=8).fingerprint
    assert prints["a"] == prints["same"]
    assert len(set(prints.values())) == 3
    assert prints["a"] in dataset(tmp_path / "a", seq_len=8).describe()


@pytest.mark.parametrize("suffix", ["bytes", "ends"])
def test_shards_that_have_gone_or_were_cut_off_are_named_with_what_to_do(tmp_path, suffix):
    ingested(tmp_path / "out", [json_lines(tmp_path / "a.jsonl", ["abc" * 100])])
    path = tmp_path / f"out/train-000000-000000.{suffix}"
    os.truncate(path, 4)
    words = (
        rf"{path.name}: has 4 bytes where the index says \d+; put it back, or ingest again into .*--restart"
    )
    with pytest.raises(DataError, match=words):
        dataset(tmp_path / "out")
    path.unlink()
    with pytest.raises(
        DataError, match=rf"{path.name}: cannot be read: No such file or directory; put it back"
    ):
        dataset(tmp_path / "out")


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("touched", [False, True], ids=["before-it-is-mapped", "after-it-is-mapped"])
def test_a_shard_that_is_cut_off_while_it_is_used_is_an_error_and_no_crash(tmp_path, packing, touched):
    """Touching a map past the end of its file would end the process with SIGBUS."""
    ingested(tmp_path / "out", [json_lines(tmp_path / "a.jsonl", ["abc" * 10_000])])
    found = dataset(tmp_path / "out", seq_len=8, packing=packing)
    if touched:
        found.batch(seed=0, step=0)
    os.truncate(tmp_path / "out/train-000000-000000.bytes", 4)
    with pytest.raises(
        DataError, match=r"train-000000-000000.bytes: has 4 bytes where the index says 30,000"
    ):
        found.batch(seed=0, step=1)


def test_a_shard_that_has_gone_before_it_is_touched_is_an_error(tmp_path):
    ingested(tmp_path / "out", [json_lines(tmp_path / "a.jsonl", ["abc" * 100])])
    found = dataset(tmp_path / "out", seq_len=8)
    (tmp_path / "out/train-000000-000000.bytes").unlink()
    with pytest.raises(
        DataError, match=r"train-000000-000000.bytes: cannot be opened: No such file .*--restart"
    ):
        found.batch(seed=0, step=0)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"packing": "stram"}, ArgumentError, r"packing is 'stram', allowed is .* Did you mean 'stream'\?"),
        ({"seq_len": 0}, ArgumentError, "seq_len is 0, allowed is >= 1"),
        ({"seq_len": 10**6}, DataError, "too short: .*seq_len=1000000 needs 1000001"),
    ],
)
def test_wrong_arguments_are_said(shards, options, error, words):
    with pytest.raises(error, match=words):
        dataset(shards, **options)


def test_documents_without_a_target_are_an_error_where_each_stands_alone(tmp_path):
    ingested(tmp_path / "out", [json_lines(tmp_path / "a.jsonl", ["a", "b", "c"])])
    with pytest.raises(DataError, match="none of its 3 documents to train on has two bytes"):
        dataset(tmp_path / "out", packing="documents")


def test_more_shards_than_may_be_mapped_at_once_are_read(tmp_path):
    texts = [f"{number:05}" for number in range(100)]
    index = ingested(tmp_path / "out", [json_lines(tmp_path / "a.jsonl", texts)], shard_bytes=5)
    assert len(index.train) == 100
    found = dataset(tmp_path / "out", seq_len=17, batch_size=50)
    inputs = torch.cat([found.batch(seed=0, step=step).inputs for step in range(4)])
    assert all(bytes(row.tolist()) in "".join(texts).encode() for row in inputs)


def test_batches_stay_what_they_were_in_earlier_releases(shards):
    """A change here breaks exact resume of every run begun before it."""
    starts = {
        packing: dataset(shards, seq_len=10, packing=packing)._order.spans(80, 6, seed=7).starts.tolist()
        for packing in ("stream", "documents")
    }
    assert starts == {
        "stream": [9303, 5863, 213, 3233, 10273, 853],
        "documents": [9684, 1827, 7983, 8582, 6978, 7759],
    }


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_dataset_can_be_sent_to_another_process(shards, packing):
    found = dataset(shards, seq_len=20, packing=packing)
    expected = found.batch(seed=1, step=2)
    sent = pickle.dumps(found)
    assert len(sent) < 20_000, "the shards themselves are not sent"
    assert torch.equal(pickle.loads(sent).batch(seed=1, step=2).inputs, expected.inputs)


def test_config_and_dataset_take_the_same_options():
    options = {field.name: field.default for field in attrs.fields(ByteShardsConfig)}
    signature = inspect.signature(ByteShards).parameters
    assert options.pop("path") is attrs.NOTHING
    assert options == {n: p.default for n, p in signature.items() if n != "path"}
