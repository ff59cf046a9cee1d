"""A causal convolution along the sequence: torch's own nn.Conv1d, which also goes token by token."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helix_ssm.layers.protocol import check_at_least, check_chunk


class Conv(nn.Module):
    """Causal nn.Conv1d: y_t = bias + sum over k of W_k x_{t - (K - 1 - k) dilation}.

    Args:
        d_model: Width D of input and output.
        kernel_size: Taps K.
        dilation: Tokens from one tap to the next; the layer sees (K - 1) dilation tokens back.
        depthwise: Whether each channel is convolved on its own; else every output sees every input channel.
        bias: Whether a bias is added.

    Raises:
        ArgumentError: A size is below 1.
    """

    def __init__(
        self,
        d_model: int,
        *,
        kernel_size: int = 4,
        dilation: int = 1,
        depthwise: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        for name, size in {"d_model": d_model, "kernel_size": kernel_size, "dilation": dilation}.items():
            check_at_least("conv", name, size, 1)
        self.d_model, self.n_past = d_model, (kernel_size - 1) * dilation
        groups = d_model if depthwise else 1
        self.conv = nn.Conv1d(d_model, d_model, kernel_size, dilation=dilation, groups=groups, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, L, D) to (B, L, D)."""
        check_chunk("conv", x, self.d_model)
        return self._convolve(F.pad(x, (0, 0, self.n_past, 0)))

    def init_state(
        self, batch_size: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Return the state before the first token: zeros for the last inputs (B, (K - 1) dilation, D)."""
        like = self.conv.weight.new_empty(0, device=device, dtype=dtype)
        return like.new_zeros(batch_size, self.n_past, self.d_model)

    def extend(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Map a chunk x (B, L, D) that follows `state` to (B, L, D) and the next state."""
        check_chunk("conv", x, self.d_model)
        if x.shape[1] == 0:
            return x, state
        inputs = torch.cat([state.to(x.dtype), x], dim=1)
        return self._convolve(inputs), inputs[:, x.shape[1] :].to(state.dtype)

    def step(self, x_t: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Map one token x_t (B, D) that follows `state` to (B, D) and the next state."""
        y, state = self.extend(x_t.unsqueeze(1), state)
        return y.squeeze(1), state

    def _convolve(self, inputs: Tensor) -> Tensor:
        """Map inputs with the past before them (B, n_past + L, D) to (B, L, D)."""
        y: Tensor = self.conv(inputs.transpose(1, 2))
        return y.transpose(1, 2)
