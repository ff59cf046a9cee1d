"""Tokenizers: text to ids and back, and what is no text."""

from __future__ import annotations

import sys
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend

from helix_data.byte_tokenizer import ByteTokenizer
from helix_data.config import HFTokenizerConfig
from helix_data.hf_tokenizer import HFTokenizer
from helix_kernel import Kernel
from helix_kernel.errors import ArgumentError, DataError, DependencyError


@pytest.fixture(scope="module")
def tokenizer(tokenizer_json):
    return HFTokenizer(path=tokenizer_json)


@given(data=st.binary(max_size=100))
def test_bytes_are_their_own_ids(data):
    ids = ByteTokenizer().encode(data)
    assert ids.tolist() == list(data)
    assert ByteTokenizer().decode(ids.tolist()) == data
    assert ByteTokenizer.vocab_size == 256


@pytest.mark.parametrize("ids", [[65, 256], [-1]])
def test_an_id_of_no_byte_is_said(ids):
    with pytest.raises(ArgumentError, match=rf"ids hold {ids[-1]}, allowed is 0 to 255"):
        ByteTokenizer().decode(ids)


@given(words=st.text(st.characters(codec="utf-8"), max_size=60))
def test_any_text_comes_back_and_has_the_librarys_ids(tokenizer, tokenizer_json, words):
    backend = Backend.from_file(tokenizer_json)
    backend.no_truncation(), backend.no_padding()
    ids = tokenizer.encode(words.encode())
    assert ids.tolist() == backend.encode(words, add_special_tokens=False).ids
    assert tokenizer.decode(ids.tolist()) == words.encode()
    assert all(0 <= value < tokenizer.vocab_size for value in ids)


def test_a_text_of_any_length_gets_all_its_ids_and_no_padding(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text.encode())) == text.encode()
    assert len(tokenizer.encode(b"a")) == 1


def test_ids_beyond_those_of_the_model_count_too(tokenizer, tokenizer_json, tmp_path):
    backend = Backend.from_file(tokenizer_json)
    assert tokenizer.vocab_size == backend.get_vocab_size(with_added_tokens=True) == 300
    backend.add_tokens(["<new>"])
    backend.save(str(tmp_path / "more.json"))
    more = HFTokenizer(path=str(tmp_path / "more.json"))
    assert more.vocab_size == 301
    assert more.encode(b"<new>").tolist() == [300]


def test_special_tokens_are_added_where_they_are_wanted(tokenizer, tokenizer_json):
    wanted = HFTokenizer(path=tokenizer_json, special_tokens=True)
    begin = Backend.from_file(tokenizer_json).token_to_id("<begin>")
    assert wanted.encode(b"cat").tolist() == [begin, *tokenizer.encode(b"cat")]
    assert wanted.decode(wanted.encode(b"cat")) == b"<begin>cat"
    assert wanted.fingerprint != tokenizer.fingerprint


def test_the_fingerprint_is_that_of_the_file_wherever_it_lies(tokenizer, tokenizer_json, tmp_path):
    data, copy = Path(tokenizer_json).read_bytes(), tmp_path / "copy.json"
    copy.write_bytes(data)
    assert HFTokenizer(path=str(copy)).fingerprint == tokenizer.fingerprint
    copy.write_bytes(data + b"\n")
    assert HFTokenizer(path=str(copy)).fingerprint != tokenizer.fingerprint


def test_what_is_not_utf8_is_said_with_its_place(tokenizer):
    with pytest.raises(ArgumentError, match="byte 3 is 0xff, which is not UTF-8"):
        tokenizer.encode(b"cat\xff")


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read: No such file"), (b"{}", "is not a tokenizer.json"), (b"\xff", "is not a tok")],
)
def test_a_file_that_is_none_is_said(tmp_path, content, message):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        HFTokenizer(path=str(path))


def test_the_kernel_builds_both_by_name(tokenizer_json):
    kernel = Kernel(plugins=["helix-data"])
    assert kernel.build("tokenizer", "bytes").vocab_size == 256
    built = kernel.build("tokenizer", {"use": "hf-tokenizer", "path": tokenizer_json})
    assert built.vocab_size == 300


def test_without_the_library_the_extra_is_named(tokenizer_json, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    monkeypatch.delitem(sys.modules, "helix_data.hf_tokenizer")
    kernel = Kernel(plugins=["helix-data"])
    with pytest.raises(DependencyError, match=r"requires helix-data\[tokenizers\]"):
        kernel.build("tokenizer", {"use": "hf-tokenizer", "path": tokenizer_json})


def test_config_and_tokenizer_have_the_same_options():
    assert [field.name for field in attrs.fields(HFTokenizerConfig)] == ["path", "special_tokens"]
