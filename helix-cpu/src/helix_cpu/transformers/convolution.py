"""causal-conv1d's functions by Helix's kernel, in the layout that transformers calls them with: (B, D, L)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from helix_cpu.transformers.kernels import CONVOLUTION
from helix_cpu.transformers.layout import steps
from helix_cpu.transformers.packing import fits, one_row, sequences

if TYPE_CHECKING:
    from torch import Tensor

_SILU = {None: False, "silu": True, "swish": True}


def causal_conv1d_fn(
    hidden_states: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    seq_idx: Tensor | None = None,
) -> Any:
    """Convolve every channel with its own taps, looking back only.

    Args:
        hidden_states: Inputs (B, D, L).
        weight: Taps (D, K), the last one for the newest input.
        bias: Added before the activation (D,).
        activation: None, ``"silu"`` or ``"swish"``; others are not served.
        seq_idx: Which of the sequences packed into a row each step belongs to (B, L).

    Returns:
        The result (B, D, L), or ``NotImplemented``.
    """
    if not _serves(hidden_states, weight, bias, activation):
        return NotImplemented
    inputs = steps(hidden_states)
    if seq_idx is None:
        results = CONVOLUTION(inputs, weight, bias, _SILU[activation], None, None)
        return results if results is NotImplemented else results[0].transpose(1, 2)
    packed = sequences(seq_idx, inputs)
    if packed is None:
        return NotImplemented
    results = CONVOLUTION(one_row(inputs), weight, bias, _SILU[activation], None, packed.bounds)
    return results if results is NotImplemented else results[0].view(inputs.shape).transpose(1, 2)


def causal_conv1d_update(
    hidden_states: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
) -> Any:
    """Go on with a convolution, and move its state along.

    Args:
        hidden_states: The next inputs (B, D, L).
        conv_state: The last inputs (B, D, S), at least K-1 of them, the newest last; changed in place.
        weight: Taps (D, K).
        bias: Added before the activation (D,).
        activation: None, ``"silu"`` or ``"swish"``; others are not served.

    Returns:
        The result (B, D, L), or ``NotImplemented``.
    """
    if not _serves(hidden_states, weight, bias, activation):
        return NotImplemented
    batch_size, d_model, _ = hidden_states.shape
    kept = conv_state.shape[-1]
    before = weight.shape[1] - 1
    if conv_state.shape != (batch_size, d_model, kept) or kept < before:
        return NotImplemented
    window = torch.cat([conv_state, hidden_states], dim=-1)
    state = window[:, :, kept - before : kept].transpose(1, 2)
    results = CONVOLUTION(hidden_states.transpose(1, 2), weight, bias, _SILU[activation], state, None)
    if results is NotImplemented:
        return NotImplemented
    conv_state.copy_(window[:, :, -kept:] if kept else conv_state)
    return results[0].transpose(1, 2)


def _serves(hidden_states: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None) -> bool:
    if hidden_states.dim() != 3 or weight.dim() != 2 or activation not in _SILU:
        return False
    d_model = hidden_states.shape[1]
    return weight.shape[0] == d_model and weight.shape[1] > 0 and fits(bias, d_model)
