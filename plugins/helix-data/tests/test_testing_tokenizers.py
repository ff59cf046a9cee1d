"""The suite of tokenizers passes ours, and catches each of these faults."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from helix_data.byte_tokenizer import ByteTokenizer
from helix_data.testing.tokenizers import TokenizerSuite
from helix_kernel import Kernel
from helix_kernel.errors import ArgumentError
from helix_kernel.testing.faults import caught_by
from helix_kernel.testing.provider_cases import derive


class LowersCase(ByteTokenizer):
    def encode(self, data):
        return super().encode(data.lower())


class ReplacesWhatIsNoText(ByteTokenizer):
    def encode(self, data):
        return super().encode(data.decode(errors="replace").encode())


class FailsInItsOwnWay(ByteTokenizer):
    def encode(self, data):
        data.decode()
        return super().encode(data)


class CountsTooFew(ByteTokenizer):
    vocab_size = 200


class GivesFloats(ByteTokenizer):
    def encode(self, data):
        return super().encode(data).astype(np.float32)


class AddsASpace(ByteTokenizer):
    def decode(self, ids):
        return b" " + super().decode(ids) if not ids else super().decode(ids)


class LearnsAsItGoes(ByteTokenizer):
    n_texts = 0

    def encode(self, data):
        self.n_texts += 1
        return np.roll(super().encode(data), self.n_texts)


class LosesItsStateOnTheWay(ByteTokenizer):
    def __init__(self):
        self.first = 1

    def __getstate__(self):
        return {"first": 0}

    def encode(self, data):
        return (super().encode(data) + self.first).astype(np.uint8)


class CountsItself(ByteTokenizer):
    numbers = itertools.count()

    def __init__(self):
        self.fingerprint = f"bytes {next(self.numbers)}"


class TakesIdsModulo(ByteTokenizer):
    def decode(self, ids):
        return bytes(value % 256 for value in ids)


class ShowsAnIndexError(ByteTokenizer):
    def decode(self, ids):
        table = [bytes([value]) for value in range(256)]
        if any(value < 0 for value in ids):
            raise ArgumentError("ids hold -1, allowed is 0 to 255")
        return b"".join(table[value] for value in ids)


FAULTS = [
    (LowersCase, "test_a_text_comes_back", "words: b'The cat .* comes back as b'the cat"),
    (ReplacesWhatIsNoText, "test_what_is_no_text_comes_back_or_is_refused", "is taken, and comes back as"),
    (
        FailsInItsOwnWay,
        "test_what_is_no_text_comes_back_or_is_refused",
        "UnicodeDecodeError.*raise ArgumentError",
    ),
    (CountsTooFew, "test_ids_lie_in_the_vocabulary", r"an id is \d+, and vocab_size is 200"),
    (GivesFloats, "test_ids_lie_in_the_vocabulary", "ids are of float32"),
    (AddsASpace, "test_nothing_is_nothing", "no ids become b' '"),
    (LearnsAsItGoes, "test_a_text_always_has_the_same_ids", "the same tokenizer gives"),
    (LosesItsStateOnTheWay, "test_another_process_gives_the_same_ids", "that was pickled gives"),
    (CountsItself, "test_the_fingerprint_is_that_of_the_ids", "two equal tokenizers have the fingerprints"),
    (TakesIdsModulo, "test_an_id_below_zero_is_refused", "id -1 is taken"),
    (
        TakesIdsModulo,
        "test_an_id_beyond_the_vocabulary_is_refused_or_nothing",
        "id 256, beyond vocab_size 256",
    ),
    (ShowsAnIndexError, "test_an_id_beyond_the_vocabulary_is_refused_or_nothing", "id 256: IndexError"),
]


@pytest.mark.parametrize(
    ("fault", "case", "says"),
    FAULTS,
    ids=[f"{row[0].__name__}-{number}" for number, row in enumerate(FAULTS)],
)
def test_a_fault_is_caught_by_the_case_meant_for_it(tmp_path, fault, case, says):
    caught_by(of(fault), case, says, right=of(ByteTokenizer), tmp_path=tmp_path)


def of(tokenizer):
    return type("Suite", (TokenizerSuite,), {"make_tokenizer": lambda self: tokenizer()})


globals().update(
    (f"Test_{name}", suite)
    for name, suite in derive(Kernel(plugins=["helix-data"]), "helix-data").items()
    if name.startswith("tokenizer-")
)
