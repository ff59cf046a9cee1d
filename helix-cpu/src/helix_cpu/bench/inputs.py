"""The tensors that contestants are given: one draw for each op and shape, as models have them at first."""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor

EPS = 1e-5
"""Of the gated norm."""


@attrs.frozen
class Scan:
    """Of `selective_scan`: u, delta, z and grad (B, L, D), A (D, N), B and C (B, L, N), the others (D,)."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    z: Tensor
    delta_bias: Tensor
    grad: Tensor


@attrs.frozen
class Ssd:
    """Of `ssd_scan`: x and grad (B, L, H, P), dt (B, L, H), B and C (B, L, G, N), the others (H,)."""

    x: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    dt_bias: Tensor
    grad: Tensor


@attrs.frozen
class Conv:
    """Of `causal_conv1d`: x (B, L, D), weight (D, K), bias (D,)."""

    x: Tensor
    weight: Tensor
    bias: Tensor


@attrs.frozen
class LongConv:
    """Of `long_conv`: x (B, L, D), kernel (D, L)."""

    x: Tensor
    kernel: Tensor


@attrs.frozen
class Norm:
    """Of `rms_norm`: x and z (B, L, D), weight (D,)."""

    x: Tensor
    z: Tensor
    weight: Tensor


@attrs.frozen
class Gated:
    """Of `gla`: all (B, L, H, K) but the scale."""

    q: Tensor
    k: Tensor
    v: Tensor
    g: Tensor
    scale: float


@attrs.frozen
class DeltaRule:
    """Of `gated_delta_rule`: q, k and v (B, L, H, K), g and beta (B, L, H)."""

    q: Tensor
    k: Tensor
    v: Tensor
    g: Tensor
    beta: Tensor
    scale: float


@attrs.frozen
class Rwkv:
    """Of `rwkv7`: all (B, L, H, K)."""

    r: Tensor
    w: Tensor
    k: Tensor
    v: Tensor
    a: Tensor
    b: Tensor


def scan(batch_size: int, seq_len: int, d_model: int, d_state: int) -> Scan:
    """Draw what a Mamba layer gives its scan at the start of training."""
    draw = _Draw()
    x = (batch_size, seq_len, d_model)
    projection = (batch_size, seq_len, d_state)
    rates = -torch.arange(1.0, d_state + 1).repeat(d_model, 1)
    return Scan(
        draw(*x),
        0.1 * draw(*x),
        rates,
        draw(*projection),
        draw(*projection),
        torch.ones(d_model),
        draw(*x),
        draw.step_sizes(d_model),
        draw(*x),
    )


def ssd(batch_size: int, seq_len: int, n_heads: int, head_dim: int, d_state: int) -> Ssd:
    """Draw what a Mamba-2 layer gives its scan at the start of training, in one group."""
    draw = _Draw()
    x = (batch_size, seq_len, n_heads, head_dim)
    projection = (batch_size, seq_len, 1, d_state)
    return Ssd(
        draw(*x),
        0.1 * draw(*x[:3]),
        -torch.arange(1.0, n_heads + 1),
        draw(*projection),
        draw(*projection),
        torch.ones(n_heads),
        draw.step_sizes(n_heads),
        draw(*x),
    )


def narrowed(drawn: Ssd) -> Ssd:
    """Return the same inputs, those with a time axis in bfloat16."""
    x, dt, B, C = (tensor.bfloat16() for tensor in (drawn.x, drawn.dt, drawn.B, drawn.C))
    return attrs.evolve(drawn, x=x, dt=dt, B=B, C=C)


def conv(batch_size: int, seq_len: int, d_model: int, width: int) -> Conv:
    """Draw a sequence, taps and biases."""
    draw = _Draw()
    return Conv(draw(batch_size, seq_len, d_model), draw(d_model, width), draw(d_model))


def long_conv(batch_size: int, seq_len: int, d_model: int) -> LongConv:
    """Draw a sequence, and responses as long as it that die away over it."""
    draw = _Draw()
    fading = torch.exp(-4.0 * torch.arange(seq_len) / seq_len)
    return LongConv(draw(batch_size, seq_len, d_model), draw(d_model, seq_len) * fading / math.sqrt(seq_len))


def norm(batch_size: int, seq_len: int, d_model: int) -> Norm:
    """Draw a sequence, its gate and weights."""
    draw = _Draw()
    return Norm(draw(batch_size, seq_len, d_model), draw(batch_size, seq_len, d_model), draw(d_model))


def gated(batch_size: int, seq_len: int, n_heads: int, head_dim: int) -> Gated:
    """Draw queries, keys and values, and gates that keep most of the memory."""
    draw = _Draw()
    x = (batch_size, seq_len, n_heads, head_dim)
    return Gated(draw(*x), draw(*x), draw(*x), -0.05 * draw(*x).abs(), head_dim**-0.5)


def delta_rule(batch_size: int, seq_len: int, n_heads: int, head_dim: int) -> DeltaRule:
    """Draw the same with unit keys, a decay and a strength for each head."""
    draw = _Draw()
    x = (batch_size, seq_len, n_heads, head_dim)
    q, k = draw.unit(*x), draw.unit(*x)
    return DeltaRule(q, k, draw(*x), -0.05 * draw(*x[:3]).abs(), draw(*x[:3]).sigmoid(), head_dim**-0.5)


def rwkv(batch_size: int, seq_len: int, n_heads: int, head_dim: int) -> Rwkv:
    """Draw what an RWKV-7 layer gives its recurrence: the transition removes part of what a unit key held."""
    draw = _Draw()
    x = (batch_size, seq_len, n_heads, head_dim)
    removal, rate = draw.unit(*x), draw(*x).sigmoid()
    return Rwkv(draw(*x), -0.05 * draw(*x).abs(), draw(*x), draw(*x), -removal, removal * rate)


class _Draw:
    """Normal numbers, the same in every run."""

    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(0)

    def __call__(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator)

    def unit(self, *shape: int) -> Tensor:
        """Vectors of length 1 along the last dimension."""
        return torch.nn.functional.normalize(self(*shape), dim=-1)

    def step_sizes(self, n: int) -> Tensor:
        """What softplus turns into step sizes from 0.001 to 0.1, spread evenly in their logarithm."""
        sizes = torch.exp(torch.rand(n, generator=self._generator) * math.log(100) + math.log(1e-3))
        return torch.log(torch.expm1(sizes))
