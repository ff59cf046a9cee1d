"""torch's own recurrent networks, LSTM, GRU and RNN, as a layer with a state."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from helix_ssm.layers._check import check_choice
from helix_ssm.layers.protocol import at_least_float32, check_at_least, check_chunk

Cell = Literal["lstm", "gru", "rnn"]

_MODES = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN_TANH"}


class RNN(nn.Module):
    """nn.LSTM, nn.GRU or nn.RNN (tanh) over the sequence, and an output map.

    LSTM: Hochreiter and Schmidhuber 1997; GRU: Cho et al. 2014, arXiv:1406.1078, as torch defines them.
    Parameters bear torch's names below ``rnn``. The layer traces to one graph, which torch.compile refuses
    of an nn.LSTM; only compiled training of an LSTM on a CPU is beyond PyTorch 2.13.

    Args:
        d_model: Width D of input and output.
        cell: "lstm", "gru" or "rnn".
        n_layers: Layers on top of one another.
        d_hidden: Width H of each; None means d_model.
        bias: Whether the cells and the output map have biases.

    Raises:
        ArgumentError: A size is below 1, or there is no such cell.
    """

    def __init__(
        self,
        d_model: int,
        *,
        cell: Cell = "lstm",
        n_layers: int = 1,
        d_hidden: int | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        check_choice("rnn", "cell", cell, get_args(Cell))
        d_hidden = d_model if d_hidden is None else d_hidden
        for name, size in {"d_model": d_model, "n_layers": n_layers, "d_hidden": d_hidden}.items():
            check_at_least("rnn", name, size, 1)
        self.d_model, self.d_hidden, self.n_layers, self.cell = d_model, d_hidden, n_layers, cell
        # The base class, as torch.compile turns away the named ones.
        self.rnn = nn.RNNBase(_MODES[cell], d_model, d_hidden, n_layers, bias=bias, batch_first=True)
        self.out_proj = nn.Linear(d_hidden, d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, L, D) to (B, L, D)."""
        return self.extend(x, self.init_state(len(x), device=x.device, dtype=x.dtype))[0]

    def init_state(
        self, batch_size: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> tuple[Tensor, ...]:
        """Return the state before the first token: zeros h (B, n_layers, H), of an LSTM h and c."""
        like = at_least_float32(self.out_proj.weight.new_empty(0, device=device, dtype=dtype))
        zeros = like.new_zeros(batch_size, self.n_layers, self.d_hidden)
        return (zeros, zeros) if self.cell == "lstm" else (zeros,)

    def extend(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Map a chunk x (B, L, D) that follows `state` to (B, L, D) and the next state."""
        check_chunk("rnn", x, self.d_model)
        if x.shape[1] == 0:
            return x, state
        # torch has the layers first and wants all in one dtype.
        y, *after = self._run(x, *(h.to(x.dtype).transpose(0, 1).contiguous() for h in state))
        after = [h.transpose(0, 1).to(before.dtype) for h, before in zip(after, state, strict=True)]
        return self.out_proj(y), tuple(after)

    def step(self, x_t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Map one token x_t (B, D) that follows `state` to (B, D) and the next state."""
        y, state = self.extend(x_t.unsqueeze(1), state)
        return y.squeeze(1), state

    def _run(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Return the top layer's outputs (B, L, H) and what is carried on, each (n_layers, B, H)."""
        names = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if self.rnn.bias else [])]
        weights = [getattr(self.rnn, f"{name}_l{layer}") for layer in range(self.n_layers) for name in names]
        options = (weights, self.rnn.bias, self.n_layers, 0.0, self.training, False, True)
        if self.cell == "lstm":
            return torch.lstm(x, list(state), *options)
        return (torch.gru if self.cell == "gru" else torch.rnn_tanh)(x, state[0], *options)
