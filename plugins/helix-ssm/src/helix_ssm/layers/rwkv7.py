"""The time mix of Peng et al. (2025), RWKV-7 "Goose", arXiv:2503.14456."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helix_ssm.layers.heads import choose_heads
from helix_ssm.layers.protocol import at_least_float32, check_at_least, check_chunk, without_weight_decay
from helix_ssm.layers.token_shift import mix, token_shift
from helix_ssm.ops import rwkv7

_DECAY = math.exp(-0.5)
_EPS_PER_CHANNEL = 1e-5


class RWKV7State(NamedTuple):
    """What RWKV7 carries from token to token.

    Attributes:
        last: The last token (B, 1, D).
        memory: What each head holds (B, H, K, K), keys first; float32 or wider.
    """

    last: Tensor
    memory: Tensor


class RWKV7(nn.Module):
    """RWKV-7 time mix: a delta rule whose decay, removal key and learning rate are vectors.

    Section 4.1 of the paper. With x^c_t = x_t + (x_{t-1} - x_t) x_c for each of c = r, w, k, v, a, g:
    r, k, v = receptance(x^r), key(x^k), value(x^v); the decay exp(-exp(-1/2) sigmoid(w0 + tanh(x^w w1) w2));
    the learning rate a = sigmoid(a0 + x^a a1 a2); the gate g = sigmoid(x^g g1) g2; in each head the removal
    key kappa = k k_k / |k k_k| and the replacement key k' = k (1 + (a - 1) k_a);
    S_t = (diag(decay_t) - (kappa_t a_t) kappa_t^T) S_{t-1} + k'_t v_t^T, o_t = S_t^T r_t;
    y_t = out_proj((ln_x(o_t) + (r_t . (r_k k'_t)) v_t) g_t), with ln_x a norm over each head.

    It is the first layer of the authors' model: the value residual of the later ones, which mixes the first
    layer's values into theirs, is left out, because a layer here sees no other. Parameters bear the authors'
    names, but that their output is out_proj. They begin as the authors' of a layer in mid-stack do, but
    that neither out_proj nor the low-rank maps begin at zero, where others would get no gradient.

    Args:
        d_model: Width D of input and output.
        head_dim: Width K of a head; None means the widest up to 64 that divides d_model.
        decay_low_rank_dim: Rank of the map to the decay; None means about 2.5 sqrt(d_model).
        a_low_rank_dim: Rank of the map to the learning rate; None means about 2.5 sqrt(d_model).
        gate_low_rank_dim: Rank of the map to the gate; None means about 5 sqrt(d_model).

    Raises:
        ArgumentError: A size is below 1, or head_dim does not divide d_model.
    """

    def __init__(
        self,
        d_model: int,
        *,
        head_dim: int | None = None,
        decay_low_rank_dim: int | None = None,
        a_low_rank_dim: int | None = None,
        gate_low_rank_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.n_heads, self.head_dim = choose_heads("rwkv7", d_model, None, head_dim)
        self.d_model = d_model
        self.x_r, self.x_w, self.x_k, self.x_v, self.x_a, self.x_g = (_vector(d_model) for _ in range(6))
        self.receptance = nn.Linear(d_model, d_model, bias=False)
        self.key = nn.Linear(d_model, d_model, bias=False)
        self.value = nn.Linear(d_model, d_model, bias=False)
        self.w0, self.a0 = _vector(d_model), _vector(d_model)
        self.w1, self.w2 = _low_rank("decay_low_rank_dim", decay_low_rank_dim, 2.5, d_model)
        self.a1, self.a2 = _low_rank("a_low_rank_dim", a_low_rank_dim, 2.5, d_model)
        self.g1, self.g2 = _low_rank("gate_low_rank_dim", gate_low_rank_dim, 5.0, d_model)
        self.k_k, self.k_a = _vector(d_model), _vector(d_model)
        self.r_k = without_weight_decay(nn.Parameter(torch.empty(self.n_heads, self.head_dim)))
        self.ln_x = nn.GroupNorm(self.n_heads, d_model, eps=_EPS_PER_CHANNEL * self.head_dim)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)
        self._init_weights()

    def forward(self, x: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """Map x (B, L, D), or the sequences packed into x (1, T, D), to the same shape."""
        return self._run(x, None, cu_seqlens)[0]

    def init_state(
        self, batch_size: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> RWKV7State:
        """Return the state before the first token: zeros."""
        device = self.w0.device if device is None else device
        dtype = self.w0.dtype if dtype is None else dtype
        last = torch.zeros(batch_size, 1, self.d_model, device=device, dtype=dtype)
        head = (self.n_heads, self.head_dim, self.head_dim)
        return RWKV7State(last, at_least_float32(torch.zeros(batch_size, *head, device=device, dtype=dtype)))

    def extend(
        self, x: Tensor, state: RWKV7State, *, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, RWKV7State]:
        """Map a chunk x (B, L, D) that follows `state` to (B, L, D) and the next state."""
        y, (last, memory) = self._run(x, state, cu_seqlens)
        return y, RWKV7State(last.to(state.last.dtype), memory)

    def step(self, x_t: Tensor, state: RWKV7State) -> tuple[Tensor, RWKV7State]:
        """Map one token x_t (B, D) that follows `state` to (B, D) and the next state."""
        y, state = self.extend(x_t.unsqueeze(1), state)
        return y.squeeze(1), state

    def _run(
        self, x: Tensor, state: RWKV7State | None, cu_seqlens: Tensor | None
    ) -> tuple[Tensor, RWKV7State]:
        check_chunk("rwkv7", x, self.d_model)
        before, last = token_shift(x, None if state is None else state.last, cu_seqlens)
        r = self._heads(self.receptance(mix(x, before, self.x_r)))
        v = self._heads(self.value(mix(x, before, self.x_v)))
        k, removal, a = self._keys(x, before)
        o, memory = rwkv7(
            r,
            self._heads(self._log_decay(mix(x, before, self.x_w))),
            k,
            v,
            -removal,
            removal * a,
            initial_state=None if state is None else state.memory,
            return_final_state=True,
            cu_seqlens=cu_seqlens,
        )
        bonus = (r * k * self.r_k).sum(-1, keepdim=True) * v
        gate = torch.sigmoid(mix(x, before, self.x_g) @ self.g1) @ self.g2
        y = self.out_proj((self._norm(o) + bonus.flatten(2)) * gate)
        return y, RWKV7State(last, memory)

    def _log_decay(self, x: Tensor) -> Tensor:
        """Return the logarithm of the decay, in (-exp(-1/2), 0), (B, L, D)."""
        logits = at_least_float32(torch.tanh(x @ self.w1) @ self.w2) + self.w0
        return -_DECAY * torch.sigmoid(logits)

    def _keys(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the replacement keys, the removal keys and the learning rates, each (B, L, H, K)."""
        k = at_least_float32(self.key(mix(x, before, self.x_k)))
        a = torch.sigmoid(at_least_float32(mix(x, before, self.x_a) @ self.a1 @ self.a2) + self.a0)
        removal = F.normalize(self._heads(k * self.k_k), dim=-1)
        return self._heads(k * (1 + (a - 1) * self.k_a)), removal, self._heads(a)

    def _norm(self, o: Tensor) -> Tensor:
        """Normalise each head of o (B, L, H, K); returns (B, L, D).

        As ln_x would, which refuses heads of width 1.
        """
        normed = F.layer_norm(o, (self.head_dim,), eps=self.ln_x.eps).flatten(2)
        return normed * self.ln_x.weight + self.ln_x.bias

    def _heads(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.n_heads, self.head_dim)

    @torch.no_grad()
    def _init_weights(self) -> None:
        """Set what the authors' training code sets, for a layer half way up the stack."""
        bound = 0.5 * self.d_model**-0.5
        for weight, share in ((self.receptance, 1.0), (self.key, 0.1), (self.value, 1.0)):
            nn.init.uniform_(weight.weight, -bound * share, bound * share)
        place = torch.arange(self.d_model) / self.d_model
        for shift, power in (
            (self.x_r, 0.2),
            (self.x_w, 0.9),
            (self.x_k, 0.7),
            (self.x_v, 0.7),
            (self.x_a, 0.9),
            (self.x_g, 0.2),
        ):
            shift.copy_(1 - place ** (0.5 * power))
        slope = torch.linspace(0, 1, self.d_model)
        zigzag = torch.linspace(-1, 1, self.head_dim).repeat(self.n_heads)
        zigzag = zigzag * zigzag.abs()
        self.w0.copy_(-5.5 + 6 * slope ** (1 + 0.5**0.3) + 2.5 * zigzag)
        self.a0.copy_(-0.19 + 0.3 * zigzag + 0.4 * (slope - 0.5))
        self.k_k.copy_(0.71 - 0.1 * (slope - 0.5))
        self.k_a.fill_(1.02)
        self.r_k.fill_(-0.04)


def _vector(width: int) -> nn.Parameter:
    return without_weight_decay(nn.Parameter(torch.empty(width)))


def _low_rank(name: str, rank: int | None, share: float, d_model: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Return the factors (D, R) and (R, D) of a map of rank R, by default a multiple of 32."""
    rank = max(32, round(share * d_model**0.5 / 32) * 32) if rank is None else rank
    check_at_least("rwkv7", name, rank, 1)
    return _orthogonal(d_model, rank), _orthogonal(rank, d_model)


def _orthogonal(rows: int, columns: int) -> nn.Parameter:
    gain = 0.1 * max(1.0, math.sqrt(rows / columns))
    return nn.Parameter(nn.init.orthogonal_(torch.empty(rows, columns), gain=gain))
