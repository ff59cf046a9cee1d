"""Traces of requests: the contexts of a text, one at each byte, as a memory of motifs would ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@attrs.frozen(kw_only=True, eq=False)
class Trace:
    """What is asked for, request by request (n,).

    Args:
        keys: The contexts, as numbers.
        before: The byte before each.
        saved_bits: What the context saves against order 1 if it predicts the byte that followed it last: the
            bits of what follows now by the counts of bytes after its last byte so far, less one bit where the
            prediction is right, and less 8 bits where it is wrong.
    """

    keys: NDArray[np.uint64]
    before: NDArray[np.uint64]
    saved_bits: NDArray[np.float64]


def trace(text: bytes, order: int) -> Trace:
    """Return the requests for the contexts of `order` bytes, one at each byte that has one."""
    symbols = np.frombuffer(text, np.uint8)
    n = len(symbols) - order - 1
    keys = np.zeros(n, np.uint64)
    for place in range(1, order + 1):
        keys = keys * np.uint64(0x9E3779B97F4A7C15) + symbols[place : place + n] + np.uint64(1)
    keys ^= keys >> np.uint64(29)
    return Trace(
        keys=keys * np.uint64(0xBF58476D1CE4E5B9),
        before=symbols[:n].astype(np.uint64),
        saved_bits=_saved(keys, symbols[order : order + n], symbols[order + 1 : order + 1 + n]),
    )


def _saved(
    keys: NDArray[np.uint64], last: NDArray[np.uint8], after: NDArray[np.uint8]
) -> NDArray[np.float64]:
    pairs = last.astype(np.int64) * 256 + after
    order_1 = np.log2((_rank(last) + 256) / (_rank(pairs) + 1))
    order = np.argsort(keys, kind="stable")
    same = keys[order][1:] == keys[order][:-1]
    right = np.zeros(len(keys), np.bool_)
    right[order[1:]] = same & (after[order][1:] == after[order][:-1])
    return np.where(right, order_1 - 1, order_1 - 8)


def _rank(values: NDArray[np.int64] | NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return how many times each value came before."""
    order = np.argsort(values, kind="stable")
    sorted_values = values[order]
    starts = np.flatnonzero(np.r_[True, sorted_values[1:] != sorted_values[:-1]])
    lengths = np.diff(np.r_[starts, len(values)])
    rank = np.empty(len(values), np.int64)
    rank[order] = np.arange(len(values)) - np.repeat(starts, lengths)
    return rank
