"""Tier M0 offline: a whole text's suffix array, in which the longest motif is found whatever its length."""

from __future__ import annotations

import ctypes
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from helix_kernel.errors import ArgumentError
from helix_topo.motifs.matches import Matches
from helix_topo.native import function
from helix_topo.prediction import Prediction

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

_EVERY = 1024
_MOST = 1 << 31
_N_LENGTHS, _N_COUNTS = 12, 8
_BASE, _MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1


class _View(ctypes.Structure):
    """`Suffixes` of suffixes.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("text", "next", "order", "counts")),
        ("n", ctypes.c_int64),
    )


class SuffixMotifs:
    """All motifs of a text of bytes, exactly: p(y | context) = count(s y) / count(s), s the longest motif.

    It takes about 7 bytes for each byte of text, and does not change; `Motifs` is the form that is bounded
    and learns.

    Args:
        text: (n,) uint8.
        min_count: How often a run of symbols must have been followed by one to be a motif.

    Raises:
        ArgumentError: The text is not of bytes, or shorter than 2 or longer than 2^31 of them.
    """

    n_buckets = 1 + _N_LENGTHS * _N_COUNTS
    """Classes of finds, by the motif's length and count."""

    def __init__(self, text: Tensor, *, min_count: int = 2) -> None:
        if text.dtype != torch.uint8 or text.ndim != 1 or not 2 <= len(text) < _MOST:
            raise ArgumentError(
                f"text is {text.dtype} of shape {tuple(text.shape)}; allowed is torch.uint8 of shape (n,), "
                f"n from 2 to {_MOST - 1}"
            )
        if min_count < 1:
            raise ArgumentError(f"min_count is {min_count}, allowed is >= 1")
        self.min_count = min_count
        # Backwards, so that ends are beginnings; the last symbol of the text is followed by none.
        self._backwards = text.flip(0).contiguous().numpy()

    def advance(self, ids: Tensor, context: Tensor) -> Matches:
        """Find the longest motif that ends at each place of some rows, and what followed it.

        Args:
            ids: (B, L) int64, below 256.
            context: (B, W) int64: what came before each row, -1 for nothing; all of it matters.

        Raises:
            ArgumentError: A shape or an id does not fit.
        """
        if ids.ndim != 2 or context.ndim != 2 or len(ids) != len(context):
            raise ArgumentError(
                f"ids have shape {tuple(ids.shape)} and context {tuple(context.shape)}; allowed is "
                "(B, L) and (B, W)"
            )
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < 256:
            raise ArgumentError(f"ids are {int(ids.min())} to {int(ids.max())}; allowed is 0 to 255")
        rows = [self._row(row, before) for row, before in zip(ids, context, strict=True)]
        motif, length, count, followed = (torch.cat(parts) for parts in zip(*rows, strict=True))
        probabilities = followed / count.clamp(min=1).unsqueeze(1)
        bucket = torch.where(
            length > 0, 1 + _level(length, _N_LENGTHS) * _N_COUNTS + _level(count, _N_COUNTS), 0
        )
        prediction = Prediction(probabilities=probabilities.float(), bucket=bucket)
        never = torch.zeros(len(ids), dtype=torch.bool)
        return Matches(prediction=prediction, motif=motif, length=length, count=count, repeated=never)

    def _row(self, ids: Tensor, before: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        known = before[int((before < 0).nonzero().max()) + 1 :] if (before < 0).any() else before
        row = torch.cat([known, ids]).to(torch.uint8)
        length, count = torch.zeros(2, len(ids), dtype=torch.int64)
        followed = torch.zeros(len(ids), 256, dtype=torch.int64)
        told = length.data_ptr(), count.data_ptr(), followed.data_ptr()
        _find()(ctypes.byref(self._view), row.data_ptr(), len(known), len(ids), self.min_count, *told)
        return _ids_of(row, length), length, count, followed

    @cached_property
    def _view(self) -> _View:
        from pydivsufsort import divsufsort

        text = self._backwards
        n = len(text) - 1
        self._order = divsufsort(text[1:]).astype(np.int32)
        self._next = np.empty(n, np.uint8)
        self._counts = np.empty((n // _EVERY + 1, 256), np.uint32)
        at = {name: array.ctypes.data for name, array in (("order", self._order), ("next", self._next))}
        view = _View(text=text.ctypes.data + 1, counts=self._counts.ctypes.data, n=n, **at)
        _build()(view.text, view.order, n, view.next, view.counts)
        return view


def _level(numbers: Tensor, n_levels: int) -> Tensor:
    """Return log2 of numbers, rounded down; the last level holds all above."""
    return numbers.clamp(min=1).double().log2().long().clamp(max=n_levels - 1)


def _ids_of(row: Tensor, lengths: Tensor) -> Tensor:
    """Return the ids of the motifs, of such lengths, that end at the last places of a row."""
    sums = [0]
    for symbol in row.tolist():
        sums.append((sums[-1] * _BASE + symbol + 1) & _MASK)
    start = len(row) - len(lengths)
    ids = [
        (sums[start + i + 1] - sums[start + i + 1 - n] * pow(_BASE, n, 1 << 64)) % (1 << 63) if n else -1
        for i, n in enumerate(lengths.tolist())
    ]
    return torch.tensor(ids, dtype=torch.int64)


def _build() -> Callable[..., Any]:
    pointer = ctypes.c_void_p
    return function("suffixes_build", arguments=(pointer, pointer, ctypes.c_int64, pointer, pointer))


def _find() -> Callable[..., Any]:
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    arguments = (ctypes.POINTER(_View), pointer, number, number, number, pointer, pointer, pointer)
    return function("suffixes_find", arguments=arguments)
