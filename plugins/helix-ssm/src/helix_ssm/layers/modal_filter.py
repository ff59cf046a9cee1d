"""Long filters as sums of few exponentials: what a distilled Hyena convolves with, in constant memory."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from helix_kernel.errors import ArgumentError
from helix_ssm.layers import modes
from helix_ssm.layers._check import check_even
from helix_ssm.layers.protocol import at_least_float32, check_at_least, without_weight_decay
from helix_ssm.ops import long_conv

if TYPE_CHECKING:
    from helix_ssm.exponential_fit import Exponentials
    from helix_ssm.layers.hyena_filter import Continuation


class ModalFilter(nn.Module):
    """Filters h_t = Re sum_n R_n lambda_n^t: the modal form of Massaroli et al. 2023, arXiv:2310.18780.

    With |lambda_n| < 1, that is lambda_n = exp(-exp(A_log) + i A_imag). Each channel is a diagonal system
    of N/2 complex states: a sequence is convolved by FFT, a token costs O(N). They begin with the decays
    and the frequencies of Hyena's implicit filters and with unit energy.

    Args:
        d_model: Channels D of each filter.
        n_filters: Number of filters F.
        d_state: Real states N of each channel: N/2 complex modes.
        time_scale: Tokens over which a filter varies and decays at first.

    Raises:
        ArgumentError: d_state is below 2 or odd, or time_scale is not above 0.
    """

    def __init__(self, d_model: int, *, n_filters: int, d_state: int, time_scale: float) -> None:
        super().__init__()
        check_at_least("hyena", "d_state", d_state, 2)
        check_even("hyena", "d_state", d_state, "")
        if not time_scale > 0:
            raise ArgumentError(f"hyena: time_scale is {time_scale!r}, allowed is > 0")
        self.d_model, self.n_filters, self.n_modes = d_model, n_filters, d_state // 2
        # As the implicit filters: 1 % is left after 1.5 and, of the fastest channel, 0.3 time_scale.
        decay = torch.linspace(math.log(100) / 1.5, math.log(100) / 0.3, d_model) / time_scale
        frequency = 2 * math.pi / time_scale * (torch.arange(self.n_modes) + 0.5)
        A_log = decay.log().unsqueeze(-1).repeat(n_filters, 1, self.n_modes)
        self.A_log = without_weight_decay(nn.Parameter(A_log))
        self.A_imag = without_weight_decay(nn.Parameter(frequency.repeat(n_filters, d_model, 1)))
        scale = torch.sqrt(-torch.expm1(-2 * decay) / self.n_modes).view(-1, 1, 1)
        self.R = nn.Parameter(scale * torch.randn(n_filters, d_model, self.n_modes, 2))

    def forward(self, seq_len: int) -> Tensor:
        """Return the filters at lags 0..seq_len - 1, (F, D, seq_len), float32 or wider."""
        rate, weight = self._system()
        return modes.impulse_response(rate, weight, seq_len)

    def init_state(self, batch_size: int, like: Tensor) -> tuple[Tensor, ...]:
        """Return the state of each filter before the first token: zeros (B, D, N/2, 2)."""
        zeros = like.new_zeros(batch_size, self.d_model, self.n_modes, 2)
        return (at_least_float32(zeros),) * self.n_filters

    def continuations(self, states: tuple[Tensor, ...], seq_len: int) -> list[Continuation]:  # noqa: ARG002 - as every filter
        """Return, for each filter, what maps a chunk (B, L, D) and a state to outputs and the next state."""
        if seq_len == 1:
            return [partial(_step, *system) for system in zip(*self._system(), strict=True)]
        return [partial(_extend, *system) for system in zip(*self._system(), self(seq_len), strict=True)]

    @torch.no_grad()
    def set_(self, fitted: Exponentials) -> None:
        """Take on modes that were fitted to F * D responses, filter by filter."""
        self.A_log.copy_((-fitted.rate.real).log().view_as(self.A_log))
        self.A_imag.copy_(fitted.rate.imag.view_as(self.A_imag))
        self.R.copy_(torch.view_as_real(fitted.weight).view_as(self.R))

    def _system(self) -> tuple[Tensor, Tensor]:
        """Return the logarithm of lambda and R, each (F, D, N/2)."""
        rate = torch.complex(-at_least_float32(self.A_log).exp(), at_least_float32(self.A_imag))
        return rate, _complex(self.R)


def _extend(rate: Tensor, weight: Tensor, kernel: Tensor, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Convolve a chunk of any length, in O(L N) and one FFT."""
    h = _complex(state)
    from_state = modes.free_response(rate, weight, h, x.shape[1])
    h = modes.final_state(rate, torch.ones_like(rate), h, at_least_float32(x))
    return long_conv(x, kernel) + from_state.to(x.dtype), torch.view_as_real(h).to(state.dtype)


def _step(rate: Tensor, weight: Tensor, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Convolve a chunk of one token, in O(N)."""
    h = torch.exp(rate) * _complex(state) + at_least_float32(x).transpose(1, 2)
    y = (weight * h).sum(-1).real.unsqueeze(1)
    return y.to(x.dtype), torch.view_as_real(h).to(state.dtype)


def _complex(x: Tensor) -> Tensor:
    return torch.view_as_complex(at_least_float32(x).contiguous())
