"""The conformance suite of tokenizers: what every tokenizer must do, whoever wrote it.

Subclass `TokenizerSuite`, give it a tokenizer, and pytest runs the rest::

    class TestByteTokenizer(TokenizerSuite):
        def make_tokenizer(self):
            return ByteTokenizer()
"""

from __future__ import annotations

import pickle
import random
from typing import Any

import pytest

from helix_data.testing.places import filled, with_places
from helix_kernel.errors import ArgumentError
from helix_kernel.testing.suite import Suite

TEXTS = {
    "nothing": "",
    "words": "The cat sat on the mat. The cat sat, and sat.\n",
    "spaces": "  a\t b\n\n  c \r\n d\u00a0e ",
    "case and accents": "Stra\u00dfe, STRASSE, e\u0301 and \u00e9, \ufb01 and fi",
    "many scripts": "\u65e5\u672c\u8a9e \u0627\u0644\u0639 \U0001f469\u200d\U0001f680 \u0394\u03bb",
    "odd characters": "\x00\x01\x7f\u2028\ufeff\ufffd\uffff\U0010ffff",
    "names of special tokens": "<|end|> <s> </s> [CLS] <unk> [MASK] <pad>",
    "one long word": "ab" * 500,
}
"""Texts by what they try."""

_NO_TEXT = {
    "every byte": bytes(range(256)),
    "half a character": "caf\u00e9".encode()[:-1],
    "bytes within a text": b"cat \xff\xfe mat",
    "a surrogate": b"\xed\xa0\x80",
}

_of_each_text = pytest.mark.parametrize("text", list(TEXTS))


class TokenizerSuite(Suite):
    """Pytest class of the tokenizer protocol (see `helix_data.byte_tokenizer.Tokenizer`).

    A subclass overrides `make_tokenizer`. A component's examples may name a file that the suite makes up,
    ``"<tokenizer.json>"`` (byte-level pairs of the library `tokenizers`, with a special token ``<|end|>``).
    One that changes texts (lower case, no accents) names the cases of `TEXTS` in its `expected_failures`.
    """

    def make_tokenizer(self) -> Any:
        """Return a new tokenizer."""
        self.example = filled(dict(self.example))
        return self.build()

    @_of_each_text
    def test_a_text_comes_back(self, text: str) -> None:
        data, tokenizer = TEXTS[text].encode(), self.make_tokenizer()
        found = tokenizer.decode(tokenizer.encode(data).tolist())
        assert isinstance(found, bytes), f"decode() gives {type(found).__name__}; allowed is bytes"
        assert found == data, f"{text}: {data!r} comes back as {found!r}" + self._see(
            f"data = {data!r}", "tokenizer.decode(tokenizer.encode(data).tolist())"
        )

    @pytest.mark.parametrize("what", list(_NO_TEXT))
    def test_what_is_no_text_comes_back_or_is_refused(self, what: str) -> None:
        """A corpus of bytes that are silently replaced would train a model on what nobody wrote."""
        data, tokenizer = _NO_TEXT[what], self.make_tokenizer()
        see = self._see(f"data = {data!r}", "tokenizer.decode(tokenizer.encode(data).tolist())")
        try:
            ids = tokenizer.encode(data)
        except ArgumentError:
            return
        except Exception as error:
            raise AssertionError(
                f"{what}: {type(error).__name__}: {error}; raise ArgumentError{see}"
            ) from error
        found = tokenizer.decode(ids.tolist())
        assert found == data, (
            f"{what}: {data!r} is taken, and comes back as {found!r}; raise ArgumentError{see}"
        )

    @_of_each_text
    def test_ids_lie_in_the_vocabulary(self, text: str) -> None:
        import numpy as np

        tokenizer = self.make_tokenizer()
        ids, see = (
            tokenizer.encode(TEXTS[text].encode()),
            self._see(f"tokenizer.encode({TEXTS[text]!r}.encode())"),
        )
        assert isinstance(ids, np.ndarray), f"encode() gives {type(ids).__name__}; allowed is an array" + see
        assert np.issubdtype(ids.dtype, np.integer), f"ids are of {ids.dtype}; allowed are integers" + see
        assert ids.ndim == 1, f"ids have shape {ids.shape}; allowed is (N,)" + see
        for value in ids.tolist():
            assert 0 <= value < tokenizer.vocab_size, (
                f"{text}: an id is {value}, and vocab_size is {tokenizer.vocab_size}" + see
            )

    def test_nothing_is_nothing(self) -> None:
        tokenizer = self.make_tokenizer()
        assert tokenizer.decode([]) == b"", f"no ids become {tokenizer.decode([])!r}" + self._see(
            "tokenizer.decode([])"
        )

    def test_a_text_always_has_the_same_ids(self) -> None:
        """Whatever was encoded before, in whatever object, and whatever the process has drawn."""
        tokenizer, again = self.make_tokenizer(), self.make_tokenizer()
        first = {name: tokenizer.encode(text.encode()).tolist() for name, text in TEXTS.items()}
        for name in reversed(first):
            random.seed(0)
            for which, made in (("the same tokenizer", tokenizer), ("a new one", again)):
                ids = made.encode(TEXTS[name].encode()).tolist()
                assert ids == first[name], (
                    f"{name}: {which} gives {ids[:8]}…, before it was {first[name][:8]}…; keep nothing, and "
                    "draw nothing" + self._see(*[f"tokenizer.encode({TEXTS[name]!r}.encode())"] * 2)
                )

    def test_another_process_gives_the_same_ids(self) -> None:
        """A tokenizer is sent to workers, with its dataset, by pickle."""
        tokenizer = self.make_tokenizer()
        sent = pickle.loads(pickle.dumps(tokenizer))  # noqa: S301 - our own
        for name, text in TEXTS.items():
            ids, expected = sent.encode(text.encode()).tolist(), tokenizer.encode(text.encode()).tolist()
            assert ids == expected, (
                f"{name}: a tokenizer that was pickled gives {ids[:8]}…, itself {expected[:8]}…; write "
                "__getstate__ and __setstate__"
                + self._see(
                    "import pickle", f"pickle.loads(pickle.dumps(tokenizer)).encode({text!r}.encode())"
                )
            )
        assert sent.fingerprint == tokenizer.fingerprint, (
            "a tokenizer that was pickled has another fingerprint"
        )

    def test_the_fingerprint_is_that_of_the_ids(self) -> None:
        first, second = self.make_tokenizer(), self.make_tokenizer()
        assert isinstance(first.fingerprint, str), (
            f"fingerprint is {first.fingerprint!r}; allowed is a string"
        )
        assert first.fingerprint, "fingerprint is empty"
        first.encode(b"something else")
        assert first.fingerprint == second.fingerprint, (
            f"two equal tokenizers have the fingerprints {first.fingerprint} and {second.fingerprint}: "
            "checkpoints of the one would be refused by the other" + self._see("tokenizer.fingerprint")
        )

    def test_an_id_below_zero_is_refused(self) -> None:
        tokenizer, see = self.make_tokenizer(), self._see("tokenizer.decode([-1])")
        found = self._decoded(tokenizer, [*tokenizer.encode(b"cat").tolist(), -1], see)
        assert found is None, f"id -1 is taken, and gives {found!r}; raise ArgumentError{see}"

    def test_an_id_beyond_the_vocabulary_is_refused_or_nothing(self) -> None:
        """A model may have more outputs than there are tokens; what it says by them is no text."""
        tokenizer = self.make_tokenizer()
        ids, see = tokenizer.encode(b"cat").tolist(), self._see("tokenizer.decode([tokenizer.vocab_size])")
        for beyond in (tokenizer.vocab_size, tokenizer.vocab_size + 1000):
            found = self._decoded(tokenizer, [*ids, beyond], see)
            assert found in (None, tokenizer.decode(ids)), (
                f"id {beyond}, beyond vocab_size {tokenizer.vocab_size}, makes {found!r} of "
                f"{tokenizer.decode(ids)!r}; raise ArgumentError, or leave it out" + see
            )

    def _decoded(self, tokenizer: Any, ids: list[int], see: str) -> bytes | None:
        """Return what ids become, or None where the last one is refused as it should be."""
        told = ""
        try:
            found: bytes = tokenizer.decode(ids)
        except ArgumentError as error:
            told = str(error)
        except Exception as error:
            raise AssertionError(
                f"id {ids[-1]}: {type(error).__name__}: {error}; raise ArgumentError{see}"
            ) from error
        else:
            return found
        assert str(ids[-1]) in told, f"the error does not name the id, {ids[-1]}: {told}{see}"
        return None

    def _see(self, *lines: str) -> str:
        made = with_places(self.how("make_tokenizer()"))
        return self.see(
            "import helix_kernel",
            "from helix_data.testing.places import place",
            f"tokenizer = {made}",
            *lines,
        )
