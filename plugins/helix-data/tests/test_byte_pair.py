"""Byte-pair encoding: any bytes come back, text has the library's ids, and training repeats itself."""

from __future__ import annotations

import inspect
import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import normalizers, pre_tokenizers

import helix_data.byte_pair_training
from helix_data.byte_alphabet import BYTE_OF, CHARACTER_OF
from helix_data.byte_pair import BytePair
from helix_data.byte_pair_config import BytePairConfig
from helix_data.byte_pair_training import train_byte_pair
from helix_data.byte_stream import ByteStream, MemorySegment
from helix_data.hf_tokenizer import HFTokenizer
from helix_data.text_pieces import text_and_bytes
from helix_data.text_tokens import TextTokens
from helix_kernel import Kernel
from helix_kernel.errors import ArgumentError, DataError

ENDS = "<|end|>"


def stream_of(data):
    return ByteStream([MemorySegment(np.frombuffer(data, dtype=np.uint8))])


@pytest.fixture(scope="module")
def path(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("byte-pair") / "tokenizer.json"
    path.write_text(train_byte_pair(stream_of(text.encode()), vocab_size=310, special_tokens=[ENDS]))
    return str(path)


@pytest.fixture(scope="module")
def tokenizer(path):
    return BytePair(path=path)


# Text with special tokens in it, halves of characters, and bytes that are no text at all.
anything = st.lists(
    st.one_of(
        st.binary(max_size=12),
        st.text(st.characters(codec="utf-8"), max_size=12).map(str.encode),
        st.just(ENDS.encode()),
        st.just("日".encode()[:2]),
    ),
    max_size=8,
).map(b"".join)


@given(data=anything)
def test_any_bytes_come_back(tokenizer, data):
    ids = tokenizer.encode(data)
    assert ids.dtype == np.uint32
    assert tokenizer.decode(ids.tolist()) == data
    assert all(0 <= value < tokenizer.vocab_size for value in ids)


@given(data=anything, place=st.integers(0, 100))
def test_ids_decode_one_by_one(tokenizer, data, place):
    ids = tokenizer.encode(data).tolist()
    assert tokenizer.decode(ids[:place]) + tokenizer.decode(ids[place:]) == data


@given(words=st.text(st.characters(codec="utf-8"), max_size=60))
def test_text_has_the_librarys_ids(tokenizer, path, words):
    plain = Backend.from_file(path).encode(words, add_special_tokens=False).ids
    assert tokenizer.encode(words.encode()).tolist() == plain


def test_a_word_that_looks_like_a_special_token_is_a_word(tokenizer, path):
    assert tokenizer.special_ids == {ENDS: 0}
    assert 0 not in tokenizer.encode(f"cat {ENDS} cat".encode())
    assert 0 in HFTokenizer(path=path).encode(f"cat {ENDS} cat".encode())
    assert tokenizer.decode([0]) == ENDS.encode()
    assert tokenizer.fingerprint != HFTokenizer(path=path).fingerprint


def test_an_id_that_no_token_has_is_nothing_and_one_below_0_is_an_error(tokenizer):
    assert tokenizer.decode([tokenizer.vocab_size + 5]) == b""
    with pytest.raises(ArgumentError, match="ids hold -1, allowed is 0 to 309"):
        tokenizer.decode([5, -1])


def test_the_alphabet_is_the_librarys():
    assert set(CHARACTER_OF) == set(pre_tokenizers.ByteLevel.alphabet())
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    every = "".join(map(chr, [*range(0x800), 0x1000, 0xFFFD, 0x10FFFF, 0x40000, 0xC0000, 0x100000]))
    ((shown, _),) = cut.pre_tokenize_str(every)
    assert bytes(BYTE_OF[character] for character in shown) == every.encode()


@given(data=anything)
def test_text_and_what_is_none_lie_apart(data):
    parts = list(text_and_bytes(data))
    assert all(parts)
    assert b"".join(part.encode() if isinstance(part, str) else part for part in parts) == data
    valid = data.decode("utf-8", "ignore")
    assert "".join(part for part in parts if isinstance(part, str)) == valid


def test_a_merge_takes_the_most_frequent_pair():
    """Against Sennrich et al. 2016, algorithm 1, written out over the words that the library cuts."""
    data = ("low lower lowest newer wider newest " * 7 + "slow\n").encode()
    made = json.loads(train_byte_pair(stream_of(data), vocab_size=270))
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(data.decode())
    words = Counter(tuple(word) for word, _ in cut)
    for found in made["model"]["merges"]:
        pairs = Counter()
        for word, count in words.items():
            for pair in itertools.pairwise(word):
                pairs[pair] += count
        assert pairs[tuple(found)] == max(pairs.values())
        words = Counter({_merged(word, tuple(found)): count for word, count in words.items()})
    assert len(made["model"]["merges"]) == 14


def _merged(word, pair):
    merged, place = [], 0
    while place < len(word):
        width = 2 if word[place : place + 2] == pair else 1
        merged.append("".join(word[place : place + width]))
        place += width
    return tuple(merged)


def test_training_is_the_same_in_any_process_and_with_any_threads(tmp_path, text):
    path = tmp_path / "text"
    path.write_text(text)
    code = (
        "import sys, hashlib; from helix_data.sources import open_paths; "
        "from helix_data.byte_pair_training import train_byte_pair; "
        f"made = train_byte_pair(open_paths([{str(path)!r}]), vocab_size=400); "
        "print(hashlib.sha256(made.encode()).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads},
        ).stdout
        for seed, threads in [("1", "1"), ("2", "4")]
    }
    assert len(found) == 1


def test_a_pair_must_be_frequent_enough_to_become_a_token():
    data = b"abab abab xyxy " * 3

    def tokens(**options):
        return json.loads(train_byte_pair(stream_of(data), vocab_size=400, **options))["model"]["vocab"]

    assert "xy" in tokens(min_frequency=6)
    assert "xy" not in tokens(min_frequency=7)
    assert "ab" in tokens(min_frequency=12)
    assert len(tokens(min_frequency=1)) < 400


def test_special_tokens_have_the_first_ids_and_bytes_the_next():
    made = json.loads(train_byte_pair(stream_of(b"abc"), vocab_size=258, special_tokens=["<a>", "<b>"]))
    vocabulary = made["model"]["vocab"]
    assert (vocabulary["<a>"], vocabulary["<b>"]) == (0, 1)
    assert sorted(vocabulary[character] for character in CHARACTER_OF) == list(range(2, 258))
    assert len(vocabulary) == 258


def test_bytes_that_are_no_text_teach_nothing(monkeypatch):
    clean = train_byte_pair(stream_of(b"cat cat\n" * 50), vocab_size=270)
    assert train_byte_pair(stream_of(b"cat cat\n\xff" * 50), vocab_size=270) == clean
    monkeypatch.setattr(helix_data.byte_pair_training, "_PIECE", 64)
    assert train_byte_pair(stream_of(b"cat cat\n" * 50), vocab_size=270) == clean


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"vocab_size": 255}, "vocab_size is 255, allowed is >= 256: the 256 bytes"),
        ({"vocab_size": 256, "special_tokens": ["<a>"]}, ">= 257: the 256 bytes and 1 special tokens"),
        ({"vocab_size": 300, "min_frequency": 0}, "min_frequency is 0, allowed is >= 1"),
        ({"vocab_size": 300, "special_tokens": ["<a>", "<a>"]}, "has '<a>' twice"),
        ({"vocab_size": 300, "special_tokens": [""]}, "has an empty name"),
    ],
    ids=["bytes", "special", "frequency", "twice", "empty"],
)
def test_wrong_options_are_said(options, words):
    with pytest.raises(ArgumentError, match=words):
        train_byte_pair(stream_of(b"abc"), **options)


def test_files_without_any_text_are_said():
    with pytest.raises(DataError, match="hold no text in UTF-8"):
        train_byte_pair(stream_of(b"\xff\xfe" * 9), vocab_size=300)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda backend: setattr(backend, "normalizer", normalizers.NFC()), "changes a text before it cuts"),
        (lambda backend: setattr(backend, "normalizer", normalizers.Lowercase()), "changes a text before"),
        (
            lambda backend: setattr(
                backend, "pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)
            ),
            "changes a text before",
        ),
    ],
    ids=["nfc", "lowercase", "prefix"],
)
def test_a_tokenizer_that_changes_its_text_is_refused(path, tmp_path, change, words):
    backend = Backend.from_file(path)
    change(backend)
    backend.save(str(tmp_path / "other.json"))
    with pytest.raises(DataError, match=words):
        BytePair(path=str(tmp_path / "other.json"))


def test_a_tokenizer_without_all_bytes_is_refused(path, tmp_path):
    table = json.loads(Path(path).read_text())
    del table["model"]["vocab"][CHARACTER_OF[0xFF]]
    (tmp_path / "other.json").write_text(json.dumps(table))
    with pytest.raises(DataError, match=r"1 of the 256 bytes have no token, such as 0xff"):
        BytePair(path=str(tmp_path / "other.json"))


def test_a_corpus_that_is_no_text_becomes_tokens_too(path, tmp_path):
    data = b"the cat \xff\xfe sat\n" * 80
    (tmp_path / "corpus").write_bytes(data)
    tokenizer = BytePair(path=path)
    dataset = TextTokens(paths=[str(tmp_path / "corpus")], tokenizer=tokenizer, seq_len=8)
    assert tokenizer.decode(dataset.held_out().tolist()) == data[-dataset_bytes(dataset) :]
    assert dataset.tokens_per_byte < 1


def dataset_bytes(dataset):
    return round(len(dataset.held_out()) / dataset.tokens_per_byte)


def test_the_kernel_builds_it_by_name(path):
    built = Kernel(plugins=["helix-data"]).build("tokenizer", {"use": "byte-pair", "path": path})
    assert built.vocab_size == 310


def test_config_and_tokenizer_have_the_same_options():
    signature = {name: p.default for name, p in inspect.signature(BytePair).parameters.items()}
    assert signature == {"path": inspect.Parameter.empty}
    assert {field.name: field.default for field in attrs.fields(BytePairConfig)} == {"path": attrs.NOTHING}


@pytest.mark.slow
def test_training_takes_no_memory_for_a_long_text(tmp_path, text):
    """Six times the text takes no more memory than it once, within what the allocator wastes."""
    (tmp_path / "text").write_bytes(text.encode() * (2_000_000 // len(text.encode())))
    code = (
        "import resource, sys; from helix_data.sources import open_paths; "
        "from helix_data.byte_pair_training import train_byte_pair; "
        "stream = open_paths([sys.argv[1]]); "
        "stream = type(stream)(list(stream._segments) * int(sys.argv[2])); "
        "train_byte_pair(stream, vocab_size=400); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    once, often = (
        int(
            subprocess.run(
                [sys.executable, "-c", code, str(tmp_path / "text"), times],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for times in ("1", "6")
    )
    assert often - once < 5_000  # KiB, of 10 MB more text that would take some 50 bytes for each of theirs
