"""Text as its bytes."""

import io

import numpy as np
import pytest
import torch

from helix_kernel.errors import ArgumentError, DataError, InputError
from helix_kernel.modality import Sample
from helix_kernel.testing.modalities import ModalitySuite
from helix_multimodal.modalities.text import Text


class TestText(ModalitySuite):
    def make_modality(self):
        return Text()


class TestFirstLineOfText(ModalitySuite):
    def make_modality(self):
        return Text(lines=1, max_len=40)


def held(modality, data):
    return modality.load(io.BytesIO(data)).arrays["bytes"].tobytes()


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xfe\xfd", "naïve".encode("latin-1"), b"\0" * 9, bytes(range(256))]
)
def test_every_byte_is_kept(data):
    assert held(Text(), data) == data


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"lines": 1}, b"one"),
        ({"lines": 2}, b"one\r\ntwo"),
        ({"lines": 9}, b"one\r\ntwo\nthree"),
        ({"max_len": 2}, b"on"),
        ({"lines": 2, "max_len": 6}, b"one\r\nt"),
    ],
)
def test_what_is_kept_of_a_file(options, kept):
    assert held(Text(**options), b"one\r\ntwo\nthree\n") == kept


@pytest.mark.parametrize(
    ("head", "is_text"),
    [
        (b"plain words", True),
        ("κείμενο".encode(), True),
        ("cut off in mid-lett\u00e9".encode()[:-1], True),
        (b"\xef\xbb\xbfwith a mark", True),
        ("in two bytes".encode("utf-16"), True),
        ("εν δύο".encode("utf-16-be"), False),  # without a mark nothing tells it
        (b"caf\xe9 in Latin letters, mostly ASCII", True),
        (b"\x1b[1mbold\x1b[0m", True),
        (b"ends with nothing\0", False),
        (bytes(range(128, 256)), False),
        (b"", False),
    ],
)
def test_text_is_told_by_its_bytes(head, is_text):
    assert (Text().sniff(head, "a.txt") > 0.5) == is_text


def test_a_file_beyond_the_limit_is_refused_but_may_be_cut():
    with pytest.raises(DataError, match="max_bytes=10"):
        Text(max_bytes=10).load(io.BytesIO(b"x" * 11))
    assert held(Text(max_bytes=10, max_len=5), b"x" * 11) == b"xxxxx"


def test_what_a_model_gives_is_cut_to_bytes():
    assert Text().decode(torch.tensor([-3, 65, 300])).arrays["bytes"].tolist() == [0, 65, 255]


def test_what_is_no_text_is_not_saved(tmp_path):
    with pytest.raises(InputError, match=r"allowed is \(L,\) of uint8"):
        Text().save(Sample(arrays={"bytes": np.zeros(3)}), tmp_path / "a.txt")


def test_an_option_out_of_range_is_refused():
    with pytest.raises(ArgumentError, match="lines is 0"):
        Text(lines=0)
