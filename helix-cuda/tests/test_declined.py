"""What the kernels are not made for they leave to others: float64, and sizes above an op's limit."""

from __future__ import annotations

import pytest
import torch

import helix_ssm.ops  # noqa: F401 - defines the contracts
from helix_cuda.ops import NAMES, implementations
from helix_kernel.ops import defined


def _heads(new, *scalars):
    """Make the arguments of an op with keys of 257 channels; `scalars` are those of an own shape."""
    keys = [new(1, 2, 1, 257) for _ in range(2)]
    return [*keys, new(1, 2, 1, 3), *scalars]


WIDE = {
    "add_rms_norm": lambda new: [new(1, 65537), new(1, 65537), new(65537), 1e-5],
    "gated_delta_rule": lambda new: [*_heads(new, new(1, 2, 1), new(1, 2, 1)), 1.0, None, None],
    "gla": lambda new: [*_heads(new, new(1, 2, 1, 257)), 1.0, None, None],
    "rms_norm": lambda new: [new(1, 65537), new(65537), 1e-5, None, 65537, True],
    "rwkv7": lambda new: [
        new(1, 2, 1, 257), *_heads(new, new(1, 2, 1, 257), new(1, 2, 1, 257)), None, None,
    ],
    "selective_scan": lambda new: [
        new(1, 2, 3), new(1, 2, 3), new(3, 257), new(1, 2, 257), new(1, 2, 257),
        None, None, None, True, None, None,
    ],
    "ssd_scan": lambda new: [
        new(1, 2, 1, 3), new(1, 2, 1), new(1), new(1, 2, 1, 513), new(1, 2, 1, 513),
        None, None, False, None, None, None,
    ],
}  # fmt: skip


def _assert_declined(op, args):
    n_results = len(defined()[op].forward._schema.returns)
    assert implementations()[op](*args) is NotImplemented
    assert implementations()[f"{op}_backward"](*[None] * n_results, *args) is NotImplemented


@pytest.mark.parametrize("op", NAMES)
def test_float64(device, op):
    for sample in defined()[op].contract.samples():
        assert any(
            torch.is_tensor(arg) and arg.dtype in (torch.float64, torch.complex128) for arg in sample.args
        )
        _assert_declined(op, [arg.to(device) if torch.is_tensor(arg) else arg for arg in sample.args])


@pytest.mark.parametrize("op", WIDE)
def test_more_than_an_ops_limit(device, op):
    _assert_declined(op, WIDE[op](lambda *shape: torch.zeros(shape, device=device)))
