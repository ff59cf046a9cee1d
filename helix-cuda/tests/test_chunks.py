"""Chunks cover each sequence once, in order, and never two sequences together."""

from __future__ import annotations

from itertools import pairwise

import torch
import triton
import triton.language as tl
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_cuda.kernels.chunks import slots_of, tokens_of
from helix_cuda.ops.chunks import cut

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZES = st.sampled_from([1, 4, 16])


@triton.jit
def _write(
    out_tokens, out_slots, bounds, firsts, per_row, seq_len, n_slots, n_sequences,
    SIZE: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    for slot in range(n_slots):
        first, end = tokens_of(slot, bounds, per_row, seq_len, SIZE, PACKED)
        tl.store(out_tokens + 2 * slot, first)
        tl.store(out_tokens + 2 * slot + 1, end)
    for sequence in range(n_sequences):
        first, end = slots_of(sequence, firsts, per_row, PACKED)
        tl.store(out_slots + 2 * sequence, first)
        tl.store(out_slots + 2 * sequence + 1, end)


def _read(batch_size, seq_len, size, cu_seqlens=None):
    like = torch.empty(batch_size, seq_len, 1, device=DEVICE)
    chunks = cut(like, size, None if cu_seqlens is None else torch.tensor(cu_seqlens, device=DEVICE))
    tokens = torch.zeros(chunks.n_slots, 2, dtype=torch.int64, device=DEVICE)
    slots = torch.zeros(chunks.n_sequences, 2, dtype=torch.int64, device=DEVICE)
    sizes = (chunks.per_row, seq_len, chunks.n_slots, chunks.n_sequences)
    _write[(1,)](tokens, slots, chunks.bounds, chunks.firsts, *sizes, SIZE=size, PACKED=chunks.per_row == 0)
    return tokens.tolist(), slots.tolist()


def _expected(bounds, size):
    return [
        [[start, min(start + size, end)] for start in range(begin, end, size)]
        for begin, end in pairwise(bounds)
    ]


def _chunks_of_each(tokens, slots):
    return [tokens[first:end] for first, end in slots]


@settings(max_examples=25)
@given(batch_size=st.integers(1, 3), seq_len=st.integers(1, 40), size=SIZES)
def test_rows_of_a_batch_are_cut_alike(batch_size, seq_len, size):
    tokens, slots = _read(batch_size, seq_len, size)
    bounds = [row * seq_len for row in range(batch_size + 1)]
    assert _chunks_of_each(tokens, slots) == _expected(bounds, size)


@settings(max_examples=25)
@given(lengths=st.lists(st.integers(0, 40), min_size=1, max_size=5), size=SIZES)
def test_packed_sequences_are_cut_each_by_itself(lengths, size):
    bounds = torch.tensor([0, *lengths]).cumsum(0).tolist()
    tokens, slots = _read(1, bounds[-1], size, bounds)
    assert _chunks_of_each(tokens, slots) == _expected(bounds, size)
    used = slots[-1][1]
    assert all(first == end for first, end in tokens[used:])
