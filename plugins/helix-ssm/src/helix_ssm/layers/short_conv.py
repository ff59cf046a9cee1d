"""The short causal convolution that many layers begin with, by the weights of an ``nn.Conv1d``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

from helix_ssm.ops import causal_conv1d

if TYPE_CHECKING:
    from torch import Tensor, nn


def short_conv(
    conv: nn.Conv1d,
    x: Tensor,
    state: Tensor | None,
    *,
    activation: Literal["silu"] | None = None,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Convolve each channel with its own taps.

    Args:
        conv: Holds the taps, one filter of K for each of C channels, and the bias if there is one.
        x: Inputs (B, L, C), or sequences packed into (1, T, C).
        state: The K - 1 inputs before the first (B, K - 1, C); None for zeros.
        activation: What follows the bias, if anything.
        cu_seqlens: Bounds of packed sequences.

    Returns:
        The outputs, shaped as x, and the last K - 1 inputs, both in the dtype of x.
    """
    found = causal_conv1d(
        x,
        conv.weight.squeeze(1),
        conv.bias,
        activation=activation,
        initial_state=state,
        return_final_state=True,
        cu_seqlens=cu_seqlens,
    )
    return cast("tuple[Tensor, Tensor]", found)
