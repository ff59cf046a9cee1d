"""The gated long convolution of Poli et al. (2023), Hyena, arXiv:2302.10866."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor, nn

from helix_ssm.layers._check import check_choice
from helix_ssm.layers.hyena_filter import HyenaFilter
from helix_ssm.layers.modal_filter import ModalFilter
from helix_ssm.layers.protocol import check_at_least, check_chunk, without_weight_decay
from helix_ssm.layers.short_conv import short_conv
from helix_ssm.ops import causal_conv1d, long_conv

Filter = Literal["implicit", "modal"]


class HyenaState(NamedTuple):
    """What Hyena carries from token to token.

    With implicit filters it grows by 2 order * D numbers a token and row, and rows can be joined only
    where they have seen the same number of tokens. With modal filters its size is constant.

    Attributes:
        conv: The last d_conv - 1 inputs of the short convolution, (B, d_conv - 1, (order + 1) * D).
        long: The past of each long convolution, `order` states: `StreamingConvState`, or with modal
            filters tensors (B, D, d_state / 2, 2).
    """

    conv: Tensor
    long: tuple[Any, ...]


class Hyena(nn.Module):
    """Hyena operator: v <- x^n * (h^n conv v) for n = 1..order, between an input and an output map.

    Definition 3.1 and Algorithm 3 of the paper: in_proj and a short depthwise convolution make the gates
    x^1..x^order and the value v; the long filters h^n come from a small network (`HyenaFilter`), and each
    has a skip weight. A filter is a function of absolute time, so it needs no sequence length.

    Training on L tokens costs O(order D L log L). Generating them costs O(order D L log^2 L) for the
    convolutions, exactly (`streaming_conv`), and evaluates the filter network at O(L log L) points.
    Modal filters (`ModalFilter`) instead cost O(order D N) a token, in a state of constant size;
    `helix_ssm.distillation` turns trained implicit filters into modal ones, with an error that it states.

    Args:
        d_model: Width D of input and output.
        order: Number of gated long convolutions.
        d_conv: Width of the short convolution, in tokens.
        time_scale: Tokens over which a filter varies and decays; filters reach about 1.5 times as far.
        n_frequencies: Pairs of sine and cosine in the filter network's input.
        d_filter: Width of the filter network.
        n_filter_layers: Hidden layers of the filter network.
        filter_frequency: Factor inside the network's sine activations; larger makes rougher filters.
        filter: "implicit", or "modal" for sums of exponentials: no network, the four options above unused.
        d_state: Real states N of each channel of a modal filter, even.

    Raises:
        ArgumentError: A size is below 1, time_scale or filter_frequency is not above 0, there is no such
            filter, or d_state is odd with modal filters.
    """

    def __init__(
        self,
        d_model: int,
        *,
        order: int = 2,
        d_conv: int = 3,
        time_scale: float = 1024.0,
        n_frequencies: int = 16,
        d_filter: int = 64,
        n_filter_layers: int = 3,
        filter_frequency: float = 1.0,
        filter: Filter = "implicit",  # noqa: A002 - the word of the paper
        d_state: int = 32,
    ) -> None:
        super().__init__()
        for name, size in {"d_model": d_model, "order": order, "d_conv": d_conv}.items():
            check_at_least("hyena", name, size, 1)
        check_choice("hyena", "filter", filter, get_args(Filter))
        self.d_model, self.order, self.d_conv = d_model, order, d_conv
        d_inner = (order + 1) * d_model
        self.in_proj = nn.Linear(d_model, d_inner)
        self.conv1d = nn.Conv1d(d_inner, d_inner, d_conv, groups=d_inner)
        self.filter: HyenaFilter | ModalFilter
        if filter == "modal":
            self.filter = ModalFilter(d_model, n_filters=order, d_state=d_state, time_scale=time_scale)
        else:
            self.filter = HyenaFilter(
                d_model,
                n_filters=order,
                time_scale=time_scale,
                n_frequencies=n_frequencies,
                width=d_filter,
                n_layers=n_filter_layers,
                frequency=filter_frequency,
            )
        self.D = without_weight_decay(nn.Parameter(torch.randn(order, d_model)))
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, L, D) to (B, L, D)."""
        check_chunk("hyena", x, self.d_model)
        u = causal_conv1d(self.in_proj(x), self.conv1d.weight.squeeze(1), self.conv1d.bias)
        *gates, v = cast("Tensor", u).chunk(self.order + 1, dim=-1)
        filters = self.filter(x.shape[1])
        for gate, h, skip in zip(gates, filters, self.D, strict=True):
            v = gate * long_conv(v, h, D=skip)
        return cast("Tensor", self.out_proj(v))

    def init_state(
        self, batch_size: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> HyenaState:
        """Return the state before the first token: zeros, and no past of implicit filters."""
        like = self.D.new_empty(0, device=device, dtype=dtype)
        conv = like.new_zeros(batch_size, self.d_conv - 1, (self.order + 1) * self.d_model)
        return HyenaState(conv, self.filter.init_state(batch_size, like))

    def extend(self, x: Tensor, state: HyenaState) -> tuple[Tensor, HyenaState]:
        """Map a chunk x (B, L, D) that follows T tokens to (B, L, D) and the next state.

        Chunks of any lengths that add up to L cost O(L log^2 L) together, or O(L N) with modal filters.
        """
        check_chunk("hyena", x, self.d_model)
        (*gates, v), conv = self._short_conv(x, state.conv)
        filters, long = self.filter.continuations(state.long, x.shape[1]), []
        for gate, convolve, skip, past in zip(gates, filters, self.D, state.long, strict=True):
            y, now = convolve(v, past)
            long.append(now)
            v = gate * (y + skip.to(v.dtype) * v)
        return self.out_proj(v), HyenaState(conv, tuple(long))

    def step(self, x_t: Tensor, state: HyenaState) -> tuple[Tensor, HyenaState]:
        """Map one token x_t (B, D) that follows `state` to (B, D), in O(D log^2 T) on average or O(D N)."""
        y, state = self.extend(x_t.unsqueeze(1), state)
        return y.squeeze(1), state

    def _short_conv(self, x: Tensor, state: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return the gates and the value after the short convolution, each (B, L, D), and its state."""
        u, conv = short_conv(self.conv1d, self.in_proj(x), state)
        return u.chunk(self.order + 1, dim=-1), conv.to(state.dtype)
