"""The channel mix of Peng et al. (2025), RWKV-7 "Goose", arXiv:2503.14456."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helix_ssm.layers.protocol import check_at_least, check_chunk, without_weight_decay
from helix_ssm.layers.token_shift import mix, token_shift


class RWKV7ChannelMix(nn.Module):
    """RWKV-7 channel mix: a feed-forward network with squared ReLU that sees the token before too.

    Section 4.2 of the paper: y_t = out_proj(relu(key(x_t + (x_{t-1} - x_t) x_k))^2). As the channel layer
    of a language model it stands beside `rwkv7`. Its state is the last token (B, 1, D).
    Parameters bear the authors' names, but that their value is out_proj here, and begin as the authors' of
    a layer in mid-stack do, but that out_proj does not begin at zero, where key would get no gradient.

    Args:
        d_model: Width D of input and output.
        d_hidden: Width of the hidden layer; None means 4 d_model.

    Raises:
        ArgumentError: A size is below 1.
    """

    def __init__(self, d_model: int, *, d_hidden: int | None = None) -> None:
        super().__init__()
        d_hidden = 4 * d_model if d_hidden is None else d_hidden
        check_at_least("rwkv7-channel-mix", "d_model", d_model, 1)
        check_at_least("rwkv7-channel-mix", "d_hidden", d_hidden, 1)
        self.d_model = d_model
        place = torch.arange(d_model) / d_model
        self.x_k = without_weight_decay(nn.Parameter(1 - place**0.5**4))
        self.key = nn.Linear(d_model, d_hidden, bias=False)
        self.out_proj = nn.Linear(d_hidden, d_model, bias=False)
        nn.init.uniform_(self.key.weight, -0.5 * d_model**-0.5, 0.5 * d_model**-0.5)

    def forward(self, x: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """Map x (B, L, D), or the sequences packed into x (1, T, D), to the same shape."""
        return self._run(x, None, cu_seqlens)[0]

    def init_state(
        self, batch_size: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Return the state before the first token: a token of zeros (B, 1, D)."""
        device = self.x_k.device if device is None else device
        dtype = self.x_k.dtype if dtype is None else dtype
        return torch.zeros(batch_size, 1, self.d_model, device=device, dtype=dtype)

    def extend(self, x: Tensor, state: Tensor, *, cu_seqlens: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map a chunk x (B, L, D) that follows `state` to (B, L, D) and the next state."""
        y, last = self._run(x, state, cu_seqlens)
        return y, last.to(state.dtype)

    def step(self, x_t: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Map one token x_t (B, D) that follows `state` to (B, D) and the next state."""
        y, state = self.extend(x_t.unsqueeze(1), state)
        return y.squeeze(1), state

    def _run(self, x: Tensor, state: Tensor | None, cu_seqlens: Tensor | None) -> tuple[Tensor, Tensor]:
        check_chunk("rwkv7-channel-mix", x, self.d_model)
        before, last = token_shift(x, state, cu_seqlens)
        hidden = F.relu(self.key(mix(x, before, self.x_k))).square()
        return self.out_proj(hidden), last
