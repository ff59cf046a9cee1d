"""The gated convolutions of Ku et al. (2025), StripedHyena 2, arXiv:2503.01868."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor, nn

from helix_kernel.errors import ArgumentError
from helix_ssm.layers._check import check_choice
from helix_ssm.layers.inner_filters import LongFilter, MediumFilter, ShortFilter
from helix_ssm.layers.protocol import check_at_least, check_chunk
from helix_ssm.layers.short_conv import short_conv
from helix_ssm.ops import causal_conv1d

Operator = Literal["short-explicit", "medium-regularized", "long-implicit"]

_GROUP_SIZE = 16


class MultiHybridState(NamedTuple):
    """What the layer carries from token to token, of constant size.

    Attributes:
        conv: The last d_conv - 1 inputs of the featurisers, (B, d_conv - 1, 3 D).
        inner: Of the inner convolution the last filter_len - 1 inputs (B, filter_len - 1, D), or for
            "long-implicit" the modes' states (B, D, d_state).
    """

    conv: Tensor
    inner: Tensor


class MultiHybrid(nn.Module):
    """One of StripedHyena 2's operators: y = M (q * (G (k * v))), with q = T W x, k = H U x, v = K P x.

    Section 2 of the paper: W, U, P and M mix channels (in_proj and out_proj), T, H and K are short
    depthwise convolutions (the featurisers, conv1d), and G is the inner convolution, by which the three
    operators differ: "short-explicit" (Hyena-SE), 4 to 7 learnt taps; "medium-regularized" (Hyena-MR),
    about 128 learnt taps under exponentials; "long-implicit" (Hyena-LI), sums of real exponentials over
    the whole past. Filters of G are shared in groups of channels. As in the paper's definition there are
    no biases and no skip weight; the published code adds a skip weight to MR and LI, which only changes
    lag 0. A model stripes the operators, with attention in between.

    Args:
        d_model: Width D of input and output.
        operator: Which inner convolution.
        filter_len: Taps of an explicit one; None means 7 for SE and 128 for MR.
        d_state: Modes of each implicit filter.
        n_groups: Number of different filters, a divisor of d_model; None means one for each 16 channels,
            and with "long-implicit" one for each channel, as in Evo 2.
        d_conv: Width of the featurisers, in tokens.

    Raises:
        ArgumentError: A size is below 1, there is no such operator, or n_groups does not divide d_model.
    """

    def __init__(
        self,
        d_model: int,
        *,
        operator: Operator = "medium-regularized",
        filter_len: int | None = None,
        d_state: int = 16,
        n_groups: int | None = None,
        d_conv: int = 3,
    ) -> None:
        super().__init__()
        check_choice("multi-hybrid", "operator", operator, get_args(Operator))
        sizes = {"d_model": d_model, "filter_len": filter_len, "d_state": d_state, "n_groups": n_groups}
        for name, size in {**sizes, "d_conv": d_conv}.items():
            check_at_least("multi-hybrid", name, 1 if size is None else size, 1)
        self.d_model, self.d_conv = d_model, d_conv
        self.in_proj = nn.Linear(d_model, 3 * d_model, bias=False)
        self.conv1d = nn.Conv1d(3 * d_model, 3 * d_model, d_conv, groups=3 * d_model, bias=False)
        self.inner = _inner_filter(operator, d_model, filter_len, d_state, n_groups)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, L, D) to (B, L, D)."""
        check_chunk("multi-hybrid", x, self.d_model)
        features = cast("Tensor", causal_conv1d(self.in_proj(x), self.conv1d.weight.squeeze(1)))
        q, k, v = features.chunk(3, dim=-1)
        return cast("Tensor", self.out_proj(q * self.inner(k * v)))

    def init_state(
        self, batch_size: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> MultiHybridState:
        """Return the state before the first token: zeros."""
        like = self.in_proj.weight.new_empty(0, device=device, dtype=dtype)
        conv = like.new_zeros(batch_size, self.d_conv - 1, 3 * self.d_model)
        return MultiHybridState(conv, self.inner.init_state(batch_size, like))

    def extend(self, x: Tensor, state: MultiHybridState) -> tuple[Tensor, MultiHybridState]:
        """Map a chunk x (B, L, D) that follows `state` to (B, L, D) and the next state."""
        check_chunk("multi-hybrid", x, self.d_model)
        features, conv = short_conv(self.conv1d, self.in_proj(x), state.conv)
        q, k, v = features.chunk(3, dim=-1)
        y, inner = self.inner.extend(k * v, state.inner)
        return self.out_proj(q * y), MultiHybridState(conv.to(state.conv.dtype), inner)

    def step(self, x_t: Tensor, state: MultiHybridState) -> tuple[Tensor, MultiHybridState]:
        """Map one token x_t (B, D) that follows `state` to (B, D) and the next state."""
        y, state = self.extend(x_t.unsqueeze(1), state)
        return y.squeeze(1), state


def _inner_filter(
    operator: Operator, d_model: int, filter_len: int | None, d_state: int, n_groups: int | None
) -> ShortFilter | MediumFilter | LongFilter:
    if n_groups is None:
        n_groups = d_model if operator == "long-implicit" else d_model // math.gcd(d_model, _GROUP_SIZE)
    if d_model % n_groups:
        raise ArgumentError(
            f"multi-hybrid: n_groups is {n_groups}, allowed is a divisor of d_model={d_model}"
        )
    if operator == "short-explicit":
        return ShortFilter(d_model, n_groups=n_groups, filter_len=filter_len or 7)
    if operator == "medium-regularized":
        return MediumFilter(d_model, n_groups=n_groups, filter_len=filter_len or 128)
    return LongFilter(d_model, n_groups=n_groups, d_state=d_state)
