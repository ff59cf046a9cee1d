"""Text as tokens: the batches are windows of the encoded text, and the held-out text is the bytes' own."""

from __future__ import annotations

import inspect

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import helix_data.text_tokens
from helix_data.byte_tokenizer import ByteTokenizer
from helix_data.config import TextTokensConfig
from helix_data.hf_tokenizer import HFTokenizer
from helix_data.text_bytes import TextBytes
from helix_data.text_tokens import TextTokens
from helix_kernel import Kernel
from helix_kernel.errors import ArgumentError, DataError

arguments = st.fixed_dictionaries(
    {"seed": st.integers(0, 2**64 - 1), "step": st.integers(0, 10**12), "world_size": st.integers(1, 4)}
)


@pytest.fixture(scope="module")
def tokenizer(tokenizer_json):
    return HFTokenizer(path=tokenizer_json)


@pytest.fixture(scope="module")
def paths(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("corpus") / "text.txt"
    path.write_text(text)
    return [str(path)]


@pytest.fixture(scope="module")
def ascii_paths(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "ascii.txt"
    path.write_bytes(bytes(index % 120 for index in range(1000)))
    return [str(path)]


@given(arguments=arguments, seq_len=st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_over_bytes_it_is_text_bytes(ascii_paths, arguments, seq_len):
    options = {"paths": ascii_paths, "seq_len": seq_len, "batch_size": 3}
    tokens, plain = TextTokens(**options), TextBytes(**options)
    for rank in range(arguments["world_size"]):
        for found, expected in zip(
            tokens.batch(rank=rank, **arguments), plain.batch(rank=rank, **arguments), strict=True
        ):
            assert torch.equal(found, expected)
            assert found.dtype == torch.int64
            assert found.is_contiguous()
    assert tokens.held_out().tolist() == plain.held_out().tolist()
    assert tokens.tokens_per_byte == 1
    assert tokens.compressed_bits_per_byte() == plain.compressed_bits_per_byte()


@given(arguments=arguments)
@settings(max_examples=30, deadline=None)
def test_a_batch_is_windows_of_the_encoded_text(paths, text, tokenizer, arguments):
    dataset = TextTokens(paths=paths, tokenizer=tokenizer, seq_len=12, batch_size=2)
    for row, targets in zip(*dataset.batch(**arguments), strict=True):
        assert row[1:].tolist() == targets[:-1].tolist()
        window = [*row.tolist(), int(targets[-1])]
        assert tokenizer.decode(window).strip(b"\xef\xbf\xbd") in text.encode()


def test_the_parts_are_encoded_on_their_own_and_are_all_the_text(paths, text, tokenizer):
    dataset = TextTokens(paths=paths, tokenizer=tokenizer, seq_len=8, validation_fraction=0.3)
    data = text.encode()
    cut = len(data) - int(len(data) * 0.3)
    while data[cut] & 0xC0 == 0x80:
        cut += 1
    assert dataset.held_out().tolist() == tokenizer.encode(data[cut:]).tolist()
    assert dataset.tokens_per_byte == len(dataset.held_out()) / len(data[cut:]) < 1
    assert not dataset.held_out().flags.writeable


@pytest.mark.parametrize("validation_fraction", np.arange(5, 40) / 1000)
def test_no_character_is_cut_in_two(tmp_path, validation_fraction):
    """A character in two halves is no text to the tokenizer, which would say so."""

    class Strict(ByteTokenizer):
        def encode(self, data):
            data.decode()
            return super().encode(data)

    path = tmp_path / "text"
    path.write_text("aé日😀" * 100)
    dataset = TextTokens(
        paths=[str(path)], tokenizer=Strict(), seq_len=8, validation_fraction=float(validation_fraction)
    )
    assert dataset.held_out().tobytes().decode() in path.read_text()


@pytest.mark.parametrize("piece", [7, 40, 200])
def test_a_long_text_is_encoded_in_pieces_that_end_where_a_line_does(
    tmp_path, text, tokenizer, piece, monkeypatch
):
    monkeypatch.setattr(helix_data.text_tokens, "_PIECE", piece)
    pieces = []

    class Watching(ByteTokenizer):
        def encode(self, data):
            pieces.append(data)
            return super().encode(data)

    path = tmp_path / "text"
    path.write_text(text)
    dataset = TextTokens(paths=[str(path)], tokenizer=Watching(), seq_len=8, validation_fraction=0)
    assert b"".join(pieces) == text.encode()
    assert all(len(part) <= piece + 3 for part in pieces)
    assert all(part.decode() is not None for part in pieces)
    if piece > len(text.splitlines()[0].encode()):
        assert all(part.endswith(b"\n") for part in pieces)
    assert dataset.batch(seed=0, step=0).inputs.shape == (16, 8)


@pytest.mark.parametrize(("n_ids", "dtype"), [(256, np.uint8), (300, np.uint16), (2**16 + 1, np.uint32)])
def test_tokens_take_the_least_memory_that_holds_every_id(paths, n_ids, dtype):
    class Wide(ByteTokenizer):
        vocab_size = n_ids

    assert TextTokens(paths=paths, tokenizer=Wide()).held_out().dtype == dtype


def test_other_texts_and_other_tokenizers_have_other_fingerprints(paths, ascii_paths, tokenizer):
    made = [
        TextTokens(paths=paths),
        TextTokens(paths=paths, tokenizer=tokenizer),
        TextTokens(paths=ascii_paths),
    ]
    assert len({dataset.fingerprint for dataset in made}) == 3
    assert TextTokens(paths=paths).fingerprint == made[0].fingerprint
    line = made[1].describe()
    assert "tokens of 300 ids" in line
    assert made[1].fingerprint in line


def test_what_is_no_text_is_said_with_its_origin(tmp_path, tokenizer):
    path = tmp_path / "text"
    path.write_bytes(b"cat " * 300 + b"\xff" + b"cat " * 300)
    with pytest.raises(DataError, match=r"paths=.*text.*from byte 0 on: byte 1200 is 0xff"):
        TextTokens(paths=[str(path)], tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seq_len": 10_000}, r"too short: \d+ of its \d+ tokens are left .* \(its last target is one token"),
        ({"seq_len": 4, "validation_fraction": 0.0005}, "holds out [01], and 2 are the fewest"),
    ],
)
def test_a_corpus_that_is_too_short_is_an_error(paths, tokenizer, options, words):
    with pytest.raises(DataError, match=words):
        TextTokens(paths=paths, tokenizer=tokenizer, **options)


@pytest.mark.parametrize("target", [TextTokens, TextTokensConfig])
def test_wrong_arguments_are_said_by_dataset_and_config(target):
    with pytest.raises(ArgumentError, match="seq_len is 0, allowed is >= 1"):
        target(source="python-docs", seq_len=0)
    with pytest.raises(ArgumentError, match="neither source nor paths is given"):
        target()


def test_the_config_nests_a_tokenizer_and_means_bytes_without(paths, tokenizer_json):
    kernel = Kernel(plugins=["helix-data"])
    table = {"use": "text-tokens", "paths": paths}
    assert kernel.build("dataset", table).vocab_size == 256
    table["tokenizer"] = {"use": "hf-tokenizer", "path": tokenizer_json}
    assert kernel.build("dataset", table).vocab_size == 300


def test_config_and_dataset_take_the_same_options():
    fields = {field.name: field.default for field in attrs.fields(TextTokensConfig)}
    signature = {name: p.default for name, p in inspect.signature(TextTokens).parameters.items()}
    assert fields.pop("tokenizer") == {"use": "bytes"}
    assert signature.pop("tokenizer") is None
    assert fields == signature
