"""The memory that kernels keep from one call to the next: large blocks cost fresh pages only once."""

from __future__ import annotations

import mmap
import resource

import torch

from helix_cpu.ops.ssd_scan import ssd_scan_backward

SEQ_LEN, N_HEADS, D_STATE = 4096, 8, 128
KEPT = 8 * SEQ_LEN * 2 * D_STATE * 4
"""Bytes of sums that the call needs beside its results, more than the C library itself would keep."""


def call():
    x, dt = torch.ones(1, SEQ_LEN, N_HEADS, 1), torch.ones(1, SEQ_LEN, N_HEADS)
    projection = torch.ones(1, SEQ_LEN, 1, D_STATE)
    A = -torch.ones(N_HEADS)
    ssd_scan_backward(x, None, x, dt, A, projection, projection, *[None] * 2, False, *[None] * 3)


def test_a_large_block_is_not_asked_of_the_system_again(isa):
    for _ in range(2):
        call()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    call()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < KEPT / mmap.PAGESIZE / 2
