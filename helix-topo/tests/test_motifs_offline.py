"""Offline, the longest motif at each place is that which naive search of the text finds."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from helix_kernel.errors import ArgumentError
from helix_topo.motifs.offline import SuffixMotifs


def as_tensor(text):
    return torch.tensor(list(text), dtype=torch.uint8)


def followers(text, end):
    """Return what comes after each occurrence of `end` in a text."""
    return Counter(text[i + len(end)] for i in range(len(text) - len(end)) if text.startswith(end, i))


def longest_motif(text, past, min_count):
    for length in range(len(past), 0, -1):
        after = followers(text, past[len(past) - length :])
        if after.total() >= min_count:
            return length, after
    return 0, Counter()


def drawn(n, seed, *, n_symbols=3):
    return bytes(torch.randint(n_symbols, (n,), generator=torch.Generator().manual_seed(seed)).tolist())


@pytest.mark.parametrize("min_count", [1, 2, 5])
@pytest.mark.parametrize(
    ("text", "row", "before"),
    [
        (drawn(300, 0), drawn(60, 1), drawn(7, 2)),
        (drawn(300, 0, n_symbols=2), drawn(60, 1, n_symbols=2), b""),
        (b"abracadabra, abracadabra", b"cadabra, a", b"abra"),
        (b"aaaaaaaaaaaaaaaaaaaaaaaaaaa", b"aaaabaaaaa", b""),
        (b"ab" * 20 + b"\x00\xff", b"bab\x00\xff" + b"ba" * 30, b"a"),
        (b"ab", b"abab", b""),
    ],
    ids=["three symbols", "two symbols", "words", "one symbol", "extremes", "two places"],
)
def test_the_longest_motif_is_that_of_naive_search(text, row, before, min_count):
    ids, context = (torch.tensor([list(part)], dtype=torch.int64) for part in (row, before))
    found = SuffixMotifs(as_tensor(text), min_count=min_count).advance(ids, context)
    for place in range(len(row)):
        length, after = longest_motif(text, before + row[: place + 1], min_count)
        assert (found.length[place], found.count[place]) == (length, after.total())
        told = found.prediction.probabilities[place]
        wanted = torch.tensor([after[v] / max(after.total(), 1) for v in range(256)])
        torch.testing.assert_close(told, wanted)
        assert (found.motif[place] >= 0) == (length > 0)


def test_counts_of_a_long_text_are_right_across_its_rows_of_counts():
    text = drawn(20_000, 3, n_symbols=2)
    row = torch.tensor([list(text[500:520])])
    found = SuffixMotifs(as_tensor(text)).advance(row, row[:, :0])
    for place in range(10):
        after = followers(text, text[500 : 501 + place])
        assert found.length[place] == place + 1
        assert found.count[place] == after.total()
        assert found.prediction.probabilities[place, 1] == pytest.approx(after[1] / after.total())


def test_what_comes_before_nothing_does_not_count():
    memory = SuffixMotifs(as_tensor(b"abcabcabc"))
    found = memory.advance(torch.tensor([[99], [99]]), torch.tensor([[97, 98], [98, -1]]))
    assert found.length.tolist() == [3, 1]


def test_a_motif_has_one_id_and_buckets_are_in_range():
    memory = SuffixMotifs(as_tensor(b"the cat and the dog and the cow"))
    found = memory.advance(torch.tensor([list(b"xthe"), list(b"ythe")]), torch.full((2, 1), -1))
    assert found.motif[3] == found.motif[7] != found.motif[2]
    assert found.prediction.bucket[0] == 0
    assert found.prediction.bucket.max() < memory.n_buckets


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: SuffixMotifs(torch.zeros(5)), "allowed is torch.uint8"),
        (lambda: SuffixMotifs(as_tensor(b"a")), "n from 2"),
        (lambda: SuffixMotifs(as_tensor(b"ab"), min_count=0), "min_count is 0"),
        (
            lambda: SuffixMotifs(as_tensor(b"ab")).advance(torch.zeros(3), torch.zeros(3, 1)),
            "allowed is .B, L.",
        ),
        (
            lambda: SuffixMotifs(as_tensor(b"ab")).advance(torch.tensor([[256]]), torch.tensor([[-1]])),
            "allowed is 0 to 255",
        ),
    ],
    ids=["floats", "short", "min_count", "shape", "id"],
)
def test_wrong_arguments_are_refused(call, says):
    with pytest.raises(ArgumentError, match=says):
        call()
