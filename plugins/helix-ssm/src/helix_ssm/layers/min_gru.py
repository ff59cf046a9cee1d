"""The minimal gated recurrent unit of Feng et al. (2024), minGRU, arXiv:2410.01201."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from helix_ssm.layers._check import check_choice
from helix_ssm.layers.protocol import at_least_float32, check_at_least, check_chunk
from helix_ssm.layers.short_conv import short_conv
from helix_ssm.ops import diagonal_scan
from helix_ssm.ops._check import n_states

Candidate = Literal["positive", "plain"]


class MinGRUState(NamedTuple):
    """What minGRU carries from token to token.

    Attributes:
        conv: The last d_conv - 1 inputs of the convolution, (B, d_conv - 1, D); none without one.
        h: The recurrence's state, (B, expand * D), float32 or wider.
    """

    conv: Tensor
    h: Tensor


class MinGRU(nn.Module):
    """MinGRU block: a short convolution, a gated average over the past, and a map back to d_model.

    Section 3.1 of the paper. For each token u_t = conv1d(x_t), the gate is z_t = sigmoid(z_proj(u_t)), the
    candidate c_t = g(h_proj(u_t)), the state h_t = (1 - z_t) h_{t-1} + z_t c_t, and y_t = out_proj(h_t).
    Neither gate nor candidate depends on h_{t-1}, so that a scan gives every state at once. The state
    begins at zero.

    Args:
        d_model: Width D of input and output.
        expand: States for each channel of the model, the paper's expansion factor.
        d_conv: Width of the causal convolution before the recurrence, in tokens, as in the paper's
            language models; 0 for none.
        candidate: "positive" for g(c) = c + 1/2 where c >= 0 and sigmoid(c) elsewhere, which keeps
            states positive, as the paper's log-space version has it (appendix B); "plain" for g(c) = c.

    Raises:
        ArgumentError: A size is too small, or there is no such candidate.
    """

    def __init__(
        self, d_model: int, *, expand: int = 2, d_conv: int = 4, candidate: Candidate = "positive"
    ) -> None:
        super().__init__()
        check_at_least("min-gru", "d_model", d_model, 1)
        check_at_least("min-gru", "expand", expand, 1)
        check_at_least("min-gru", "d_conv", d_conv, 0)
        check_choice("min-gru", "candidate", candidate, get_args(Candidate))
        self.d_model, self.d_conv, self.candidate = d_model, d_conv, candidate
        self.d_inner = expand * d_model
        self.conv1d = nn.Conv1d(d_model, d_model, d_conv, groups=d_model) if d_conv else None
        self.z_proj = nn.Linear(d_model, self.d_inner)
        self.h_proj = nn.Linear(d_model, self.d_inner)
        self.out_proj = nn.Linear(self.d_inner, d_model)

    def forward(self, x: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """Map x (B, L, D), or packed sequences (1, T, D), to the same shape."""
        return self.extend(x, self.init_state(n_states(cu_seqlens, x.shape[0])), cu_seqlens=cu_seqlens)[0]

    def init_state(
        self, batch_size: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> MinGRUState:
        """Return the state before the first token: zeros."""
        device = self.out_proj.weight.device if device is None else device
        dtype = self.out_proj.weight.dtype if dtype is None else dtype
        conv = torch.zeros(batch_size, max(self.d_conv - 1, 0), self.d_model, device=device, dtype=dtype)
        h = torch.zeros(batch_size, self.d_inner, device=device, dtype=dtype)
        return MinGRUState(conv, at_least_float32(h))

    def extend(
        self, x: Tensor, state: MinGRUState, *, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, MinGRUState]:
        """Map a chunk x (B, L, D) that follows `state` to (B, L, D) and the next state."""
        check_chunk("min-gru", x, self.d_model)
        u, conv = self._convolve(x, state.conv, cu_seqlens)
        gate = at_least_float32(self.z_proj(u))
        candidate = at_least_float32(self.h_proj(u))
        if self.candidate == "positive":
            candidate = torch.where(candidate >= 0, candidate + 0.5, torch.sigmoid(candidate))
        h, last = diagonal_scan(
            torch.sigmoid(-gate),  # 1 - z, to the last bit where z is almost 1
            torch.sigmoid(gate) * candidate,
            initial_state=state.h,
            return_final_state=True,
            cu_seqlens=cu_seqlens,
        )
        return self.out_proj(h.to(x.dtype)), MinGRUState(conv.to(state.conv.dtype), last.to(state.h.dtype))

    def step(self, x_t: Tensor, state: MinGRUState) -> tuple[Tensor, MinGRUState]:
        """Map one token x_t (B, D) that follows `state` to (B, D) and the next state."""
        y, state = self.extend(x_t.unsqueeze(1), state)
        return y.squeeze(1), state

    def _convolve(self, x: Tensor, state: Tensor, cu_seqlens: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the convolution of x (B, L, D) and its last inputs."""
        if self.conv1d is None:
            return x, state
        return short_conv(self.conv1d, x, state, cu_seqlens=cu_seqlens)
