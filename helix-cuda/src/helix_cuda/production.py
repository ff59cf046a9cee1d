"""Calls of each op at the sizes of models in use: what is compiled ahead, and timed."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor


class New(Protocol):
    """Makes a tensor: an empty one to compile for, a drawn one to time."""

    def __call__(self, *shape: int, wide: bool = False) -> Tensor:
        """Return a tensor; a `wide` one is float32 whatever the others are, as models keep such weights."""


def empty(dtype: torch.dtype, device: str | torch.device) -> New:
    """Return what makes tensors with nothing in them; on the device ``meta`` they take no memory."""

    def new(*shape: int, wide: bool = False) -> Tensor:
        return torch.empty(shape, dtype=torch.float32 if wide else dtype, device=device)

    return new


def call(op: str, new: New, batch_size: int, seq_len: int) -> tuple[Any, ...]:
    """Return the arguments of a call of an op.

    Args:
        op: Its name.
        new: Makes the tensors.
        batch_size: Sequences; none is packed.
        seq_len: Tokens of each. A single one is a decoding step, which has a state before it.

    Raises:
        KeyError: There is no call for that op.
    """
    return _CALLS[op](new, batch_size, seq_len)


def _rms_norm(new: New, batch_size: int, seq_len: int) -> tuple[Any, ...]:
    x = new(batch_size, seq_len, 4096)
    return x, new(4096), 1e-5, torch.empty_like(x), 4096, False


def _add_rms_norm(new: New, batch_size: int, seq_len: int) -> tuple[Any, ...]:
    x, residual = (new(batch_size, seq_len, 4096) for _ in range(2))
    return x, residual, new(4096), 1e-5


def _causal_conv1d(new: New, batch_size: int, seq_len: int) -> tuple[Any, ...]:
    state = new(batch_size, 3, 4096) if seq_len == 1 else None
    return new(batch_size, seq_len, 4096), new(4096, 4), new(4096), True, state, None


def _selective_scan(new: New, batch_size: int, seq_len: int) -> tuple[Any, ...]:
    d_model, d_state = 2048, 16
    u, delta, z = (new(batch_size, seq_len, d_model) for _ in range(3))
    B, C = (new(batch_size, seq_len, d_state) for _ in range(2))
    A, D, bias = new(d_model, d_state, wide=True), new(d_model, wide=True), new(d_model, wide=True)
    state = new(batch_size, d_model, d_state, wide=True) if seq_len == 1 else None
    return u, delta, A, B, C, D, z, bias, True, state, None


def _ssd_scan(new: New, batch_size: int, seq_len: int) -> tuple[Any, ...]:
    """Make the arguments of a layer of Mamba-2 2.7B."""
    heads, width, d_state = 80, 64, 128
    x, dt = new(batch_size, seq_len, heads, width), new(batch_size, seq_len, heads)
    A, D, bias = (new(heads, wide=True) for _ in range(3))
    B, C = (new(batch_size, seq_len, 1, d_state) for _ in range(2))
    state = new(batch_size, heads, width, d_state, wide=True) if seq_len == 1 else None
    return x, dt, A, B, C, D, bias, True, None, state, None


def _diagonal_scan(new: New, batch_size: int, seq_len: int) -> tuple[Any, ...]:
    a, b = (new(batch_size, seq_len, 2048) for _ in range(2))
    return a, b, new(batch_size, 2048, wide=True) if seq_len == 1 else None, None


def _heads(new: New, batch_size: int, seq_len: int, n_keys: int, width: int) -> tuple[list[Tensor], Any]:
    """Return tensors of 16 heads, keys first and a value last, and a state where there is one."""
    keys = [new(batch_size, seq_len, 16, width) for _ in range(n_keys + 1)]
    return keys, new(batch_size, 16, width, width, wide=True) if seq_len == 1 else None


def _gla(new: New, batch_size: int, seq_len: int) -> tuple[Any, ...]:
    (q, k, g, v), state = _heads(new, batch_size, seq_len, 3, 128)
    return q, k, v, g, 128**-0.5, state, None


def _gated_delta_rule(new: New, batch_size: int, seq_len: int) -> tuple[Any, ...]:
    (q, k, v), state = _heads(new, batch_size, seq_len, 2, 128)
    g, beta = (new(batch_size, seq_len, 16) for _ in range(2))
    return q, k, v, g, beta, 128**-0.5, state, None


def _rwkv7(new: New, batch_size: int, seq_len: int) -> tuple[Any, ...]:
    (r, w, k, a, b, v), state = _heads(new, batch_size, seq_len, 5, 64)
    return r, w, k, v, a, b, state, None


def _long_conv(new: New, batch_size: int, seq_len: int) -> tuple[Any, ...]:
    return new(batch_size, seq_len, 4096), new(4096, seq_len), new(4096)


_CALLS: Mapping[str, Callable[[New, int, int], tuple[Any, ...]]] = MappingProxyType(
    {
        "rms_norm": _rms_norm,
        "add_rms_norm": _add_rms_norm,
        "causal_conv1d": _causal_conv1d,
        "selective_scan": _selective_scan,
        "ssd_scan": _ssd_scan,
        "diagonal_scan": _diagonal_scan,
        "gla": _gla,
        "gated_delta_rule": _gated_delta_rule,
        "rwkv7": _rwkv7,
        "long_conv": _long_conv,
    }
)
