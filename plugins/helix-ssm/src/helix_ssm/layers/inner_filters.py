"""The three inner convolutions of StripedHyena 2: short explicit, medium regularised, long implicit.

Ku et al. 2025, "Systems and Algorithms for Convolutional Multi-Hybrid Language Models at Scale",
arXiv:2503.01868, section 2. Filters are shared by the channels of a group. Each module maps x (B, L, D)
to (B, L, D); `extend` goes on from a state of constant size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helix_ssm.layers import modes
from helix_ssm.layers.protocol import at_least_float32, full_precision, without_weight_decay
from helix_ssm.ops import causal_conv1d, long_conv

_MILDEST, _STRONGEST = 0.1, 10.0
"""How much of a medium filter's logarithm its window takes off by the last lag: first group, last group."""
_SLOWEST, _FASTEST = 1e-3, 0.1
"""Initial decay of a long filter's modes in one token."""


class LearntTaps(nn.Module):
    """What the two filters share whose taps are learnt, each group's its own.

    Args:
        d_model: Channels D.
        n_groups: Groups G.
        filter_len: Taps K.
    """

    def __init__(self, d_model: int, *, n_groups: int, filter_len: int) -> None:
        super().__init__()
        self.d_model, self.n_groups, self.filter_len = d_model, n_groups, filter_len
        self.weight = nn.Parameter(torch.randn(n_groups, filter_len) / math.sqrt(filter_len))

    def init_state(self, batch_size: int, like: Tensor) -> Tensor:
        """Return the state before the first token: zeros for the last K - 1 inputs (B, K - 1, D)."""
        return like.new_zeros(batch_size, self.filter_len - 1, self.d_model)


class ShortFilter(LearntTaps):
    """Hyena-SE's: a few learnt taps for each group."""

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, L, D) to (B, L, D)."""
        return self.extend(x, None)[0]

    def extend(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Map a chunk x (B, L, D) that follows `state` to (B, L, D) and the next state."""
        taps = self.weight.flip(-1).repeat_interleave(self.d_model // self.n_groups, dim=0)
        y, last = causal_conv1d(x, taps, initial_state=state, return_final_state=True)
        return y, last if state is None else last.to(state.dtype)


class MediumFilter(LearntTaps):
    """Hyena-MR's: about a hundred learnt taps for each group, under an exponential that favours near ones.

    h_t = w_t exp(-alpha_g t), alpha_g swept over the groups, not learnt. The paper leaves the sweep open:
    here alpha_g K goes in equal ratios from 0.1 to 10. Applied block by block, as the paper's kernels do:
    K outputs and the 2K - 1 inputs that reach them are one product with a group's Toeplitz matrix.
    """

    def taps(self) -> Tensor:
        """Return the filters h (G, K), float32 or wider."""
        weight = at_least_float32(self.weight)
        ends = math.log(_MILDEST), math.log(_STRONGEST)
        alpha = torch.linspace(*ends, self.n_groups, device=weight.device, dtype=weight.dtype).exp()
        t = torch.arange(self.filter_len, device=weight.device, dtype=weight.dtype) / self.filter_len
        return weight * torch.exp(-alpha.unsqueeze(-1) * t)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, L, D) to (B, L, D)."""
        return self.extend(x, self.init_state(len(x), x))[0]

    def extend(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Map a chunk x (B, L, D) that follows `state` to (B, L, D) and the next state."""
        inputs = torch.cat([state.to(x.dtype), x], dim=1)
        with full_precision(x):
            y = grouped_conv(at_least_float32(inputs), self.taps(), x.shape[1])
        return y.to(x.dtype), inputs[:, x.shape[1] :].to(state.dtype)


class LongFilter(nn.Module):
    """Hyena-LI's: a sum of real exponentials for each group, h_t = sum_n R_n lambda_n^(t - 1), t from 1.

    So the first term meets the current token. 0 < lambda_n < 1, as lambda_n = exp(-exp(A_log)); decays
    begin log-uniform and filters with unit energy. Sequences are convolved by FFT, a token costs O(N).

    Args:
        d_model: Channels D.
        n_groups: Groups G.
        d_state: Modes N.
    """

    def __init__(self, d_model: int, *, n_groups: int, d_state: int) -> None:
        super().__init__()
        self.d_model, self.n_groups, self.d_state = d_model, n_groups, d_state
        A_log = torch.empty(n_groups, d_state).uniform_(math.log(_SLOWEST), math.log(_FASTEST))
        self.A_log = without_weight_decay(nn.Parameter(A_log))
        energy = -1 / torch.expm1(-2 * A_log.exp())
        self.R = nn.Parameter(torch.randn(n_groups, d_state) / torch.sqrt(d_state * energy))

    def kernel(self, seq_len: int) -> Tensor:
        """Return the filters at lags 0..seq_len - 1, (D, seq_len), float32 or wider."""
        filters = modes.impulse_response(*self._system(), seq_len)
        return filters.repeat_interleave(self.d_model // self.n_groups, dim=0)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, L, D) to (B, L, D)."""
        return long_conv(x, self.kernel(x.shape[1]))

    def init_state(self, batch_size: int, like: Tensor) -> Tensor:
        """Return the state before the first token: zeros (B, D, N), float32 or wider."""
        return at_least_float32(like.new_zeros(batch_size, self.d_model, self.d_state))

    def extend(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Map a chunk x (B, L, D) that follows `state` to (B, L, D) and the next state."""
        rate, R = (p.repeat_interleave(self.d_model // self.n_groups, dim=0) for p in self._system())
        inputs, h = at_least_float32(x), at_least_float32(state)
        if x.shape[1] == 1:
            h = torch.exp(rate) * h + inputs.transpose(1, 2)
            return (R * h).sum(-1).unsqueeze(1).to(x.dtype), h.to(state.dtype)
        from_state = modes.free_response(rate, R, h, x.shape[1])
        h = modes.final_state(rate, torch.ones_like(rate), h, inputs)
        return self(x) + from_state.to(x.dtype), h.to(state.dtype)

    def _system(self) -> tuple[Tensor, Tensor]:
        """Return log lambda and R, each (G, N)."""
        return -at_least_float32(self.A_log).exp(), at_least_float32(self.R)


def grouped_conv(inputs: Tensor, taps: Tensor, seq_len: int) -> Tensor:
    """Convolve with filters that groups of channels share, block by block.

    Args:
        inputs: The K - 1 inputs before the first output and the L after it (B, K - 1 + L, D).
        taps: Filters (G, K), lag 0 first; each serves D / G channels that lie side by side.
        seq_len: Number of outputs L.

    Returns:
        y (B, L, D).
    """
    n_groups, filter_len = taps.shape
    block = max(1, min(filter_len, seq_len))
    n_blocks = max(1, -(-seq_len // block))
    padded = F.pad(inputs, (0, 0, 0, n_blocks * block - seq_len))
    # (B, blocks, D, K - 1 + block): a block's outputs and all that reaches them.
    windows = padded.unfold(1, filter_len - 1 + block, block)
    grouped = windows.reshape(len(inputs), n_blocks, n_groups, -1, windows.shape[-1])
    # Row i holds h_{K-1+i}, …, h_0, where h is 0 outside: output i and the inputs up to it.
    lags = F.pad(taps.flip(-1), (block - 1, block - 1)).unfold(-1, filter_len - 1 + block, 1).flip(1)
    return torch.einsum("bngcj,gij->bnigc", grouped, lags).reshape(len(inputs), n_blocks * block, -1)[
        :, :seq_len
    ]
