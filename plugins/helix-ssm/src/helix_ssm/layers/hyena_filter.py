"""The implicit filters of Hyena: a small sine network over absolute time, under a decaying window."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helix_kernel.errors import ArgumentError
from helix_ssm.layers import streaming_conv
from helix_ssm.layers.protocol import at_least_float32, check_at_least, full_precision
from helix_ssm.layers.streaming_conv import StreamingConvState

Continuation = Callable[[Tensor, Any], tuple[Tensor, Any]]
"""Convolves a chunk (B, L, D) with one filter, after what its state has seen."""

# Of its value at time 0, a window keeps 1 % after these multiples of time_scale: the fastest channel's and
# the slowest's. They are those of the paper's released filters.
_FASTEST, _SLOWEST = 0.3, 1.5


class HyenaFilter(nn.Module):
    """Filters h(t) = window(t) * network(features(t)) (Poli et al. 2023, equation 7 and section 3.3).

    Time is measured in units of `time_scale` tokens instead of the training length, so that h is defined,
    and the same, for any number of tokens: filter(n) is filter(m)[..., :n] for n < m. Features are
    time itself and n_frequencies pairs cos(2 pi k t), sin(2 pi k t). The window exp(-rate t) is scaled to
    unit energy, so that the output's variance does not depend on time_scale.

    Args:
        d_model: Channels D of each filter.
        n_filters: Number of filters.
        time_scale: Tokens in one unit of time.
        n_frequencies: Pairs of sine and cosine.
        width: Width of the network's hidden layers.
        n_layers: Number of its hidden layers.
        frequency: Factor inside its sine activations.

    Raises:
        ArgumentError: A size is below 1, or time_scale or frequency is not above 0.
    """

    def __init__(
        self,
        d_model: int,
        *,
        n_filters: int,
        time_scale: float,
        n_frequencies: int,
        width: int,
        n_layers: int,
        frequency: float,
    ) -> None:
        super().__init__()
        sizes = {"n_frequencies": n_frequencies, "d_filter": width, "n_filter_layers": n_layers}
        for name, size in sizes.items():
            check_at_least("hyena", name, size, 1)
        for name, factor in {"time_scale": time_scale, "filter_frequency": frequency}.items():
            if not factor > 0:
                raise ArgumentError(f"hyena: {name} is {factor!r}, allowed is > 0")
        self.d_model, self.n_filters = d_model, n_filters
        self.time_scale, self.n_frequencies, self.frequency = time_scale, n_frequencies, frequency
        widths = [2 * n_frequencies + 1, *([width] * n_layers)]
        self.hidden = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        self.out = nn.Linear(width, n_filters * d_model, bias=False)

    def forward(self, seq_len: int) -> Tensor:
        """Return the filters at times 0..seq_len - 1, (n_filters, D, seq_len), float32 or wider."""
        weight = at_least_float32(self.out.weight)
        t = torch.arange(seq_len, device=weight.device, dtype=weight.dtype) / self.time_scale
        with full_precision(weight):
            x = self._features(t)
            for layer in self.hidden:
                x = torch.sin(self.frequency * _linear(layer, x))
            h = _linear(self.out, x).view(seq_len, self.n_filters, self.d_model)
            return (h * self._window(t).unsqueeze(1)).permute(1, 2, 0)

    def init_state(self, batch_size: int, like: Tensor) -> tuple[StreamingConvState, ...]:  # noqa: ARG002 - as every filter
        """Return the state of each filter before the first token: no past."""
        return (StreamingConvState(),) * self.n_filters

    def continuations(self, states: tuple[StreamingConvState, ...], seq_len: int) -> list[Continuation]:
        """Return, for each filter, what maps a chunk (B, L, D) and a state to outputs and the next state.

        The network is run on no more lags than the chunk's place needs, once for all filters.
        """
        n_lags = streaming_conv.n_lags(states[0].n_tokens, seq_len)
        return [partial(streaming_conv.extend, kernel) for kernel in self(n_lags)]

    def _features(self, t: Tensor) -> Tensor:
        """Return (L, 2 n_frequencies + 1) positional features of the times t (L,)."""
        k = torch.arange(1, self.n_frequencies + 1, device=t.device, dtype=t.dtype)
        phase = 2 * math.pi * t.unsqueeze(1) * k
        return torch.cat([t.unsqueeze(1), phase.cos(), phase.sin()], dim=1)

    def _window(self, t: Tensor) -> Tensor:
        """Return (L, D) windows whose squares sum to one over all times."""
        fastest, slowest = math.log(100) / _FASTEST, math.log(100) / _SLOWEST
        rates = torch.linspace(slowest, fastest, self.d_model, device=t.device, dtype=t.dtype)
        energy = 1 / -torch.expm1(-2 * rates / self.time_scale)
        return torch.exp(-t.unsqueeze(1) * rates) / energy.sqrt()


def _linear(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply an `nn.Linear` in x's dtype, which may be wider than its weights'."""
    assert isinstance(layer, nn.Linear)
    bias: Tensor | None = layer.bias
    return F.linear(x, layer.weight.to(x.dtype), bias if bias is None else bias.to(x.dtype))
