"""A mixture of experts: each token goes to the few feed-forward networks that a router chooses for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helix_kernel.errors import ArgumentError
from helix_ssm.layers.activation import Activation, activate, check_activation, default_width, is_gated
from helix_ssm.layers.protocol import at_least_float32, check_at_least, check_chunk, full_precision
from helix_ssm.ops import grouped_linear


class MoE(nn.Module):
    """Sparse mixture of experts: y = sum over the top k experts e of w_e(x) expert_e(x).

    Shazeer et al. (2017), arXiv:1701.06538, equation 1, with the routing of Mixtral (Jiang et al. 2024,
    arXiv:2401.04088, section 2.1): p = softmax(router(x)), w = the k largest of p. No token is dropped:
    tokens are sorted by expert, and each expert multiplies its own as one matrix (`ops.grouped_linear`).

    In training, two losses keep the router in order; `auxiliary_loss` gives their weighted sum over the
    last forward's T tokens. Balance (Fedus et al. 2021, Switch Transformer, arXiv:2101.03961, equations
    4 to 6): E sum_e f_e P_e, where f_e is the share of tokens sent to expert e (they sum to k) and P_e the
    mean of p_e; it is k where all is even. Router z-loss (Zoph et al. 2022, ST-MoE, arXiv:2202.08906,
    equation 5): the mean square of log sum_e exp(logit_e), which keeps logits small.

    Args:
        d_model: Width D of input and output.
        n_experts: Number of experts E.
        top_k: Experts k that each token goes to.
        d_hidden: Width of an expert's hidden layer. None means 4 d_model, or 8/3 d_model if gated, rounded
            up to a multiple of 8.
        activation: "silu", "gelu", "relu2" (squared ReLU), "swiglu" or "geglu".
        renormalise: Whether the k weights are scaled to sum to one. With top_k = 1 they would be constant,
            and the router would learn nothing from the task.
        balance_weight: Factor of the balance loss.
        z_weight: Factor of the router z-loss.

    Raises:
        ArgumentError: A size is below 1 or a weight below 0, top_k is above n_experts, there is no such
            activation, or top_k = 1 is renormalised.
    """

    def __init__(
        self,
        d_model: int,
        *,
        n_experts: int = 8,
        top_k: int = 2,
        d_hidden: int | None = None,
        activation: Activation = "swiglu",
        renormalise: bool = True,
        balance_weight: float = 0.01,
        z_weight: float = 0.001,
    ) -> None:
        super().__init__()
        check_activation("moe", activation)
        d_hidden = default_width(d_model, activation) if d_hidden is None else d_hidden
        sizes = {"d_model": d_model, "n_experts": n_experts, "top_k": top_k, "d_hidden": d_hidden}
        for name, size in sizes.items():
            check_at_least("moe", name, size, 1)
        check_at_least("moe", "balance_weight", balance_weight, 0)
        check_at_least("moe", "z_weight", z_weight, 0)
        _check_choice(n_experts, top_k, renormalise=renormalise)
        self.d_model, self.n_experts, self.top_k = d_model, n_experts, top_k
        self.activation, self.renormalise = activation, renormalise
        self.balance_weight, self.z_weight = balance_weight, z_weight
        self.router = nn.Linear(d_model, n_experts, bias=False)
        self.in_proj = _Experts(n_experts, d_model, (2 if is_gated(activation) else 1) * d_hidden)
        self.out_proj = _Experts(n_experts, d_hidden, d_model)
        self._auxiliary: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, L, D) to (B, L, D), each token on its own."""
        check_chunk("moe", x, self.d_model)
        tokens = x.reshape(-1, self.d_model)
        logits = self._logits(tokens)
        weights, experts = self._choose(logits)
        # Token t's choices are rows t k .. t k + k - 1; sorting keeps the tokens of an expert in order.
        sorted_experts, order = experts.flatten().sort(stable=True)
        bounds = torch.searchsorted(sorted_experts, torch.arange(self.n_experts + 1, device=x.device))
        hidden = self.in_proj(_as_autocast_would(tokens)[order // self.top_k], bounds)
        outputs: Tensor = self.out_proj(activate(hidden, self.activation), bounds)[order.argsort()]
        if self.training:
            self._auxiliary = self._weighted_losses(logits, bounds.diff())
        y = (outputs.view(len(tokens), self.top_k, self.d_model) * weights.unsqueeze(-1)).sum(1)
        return y.to(outputs.dtype).view(x.shape)

    def auxiliary_loss(self) -> Tensor | None:
        """Return the weighted sum of both losses over the last forward in training, or None."""
        return self._auxiliary if self.training else None

    def __getstate__(self) -> dict[str, Any]:
        # A copy or pickle of the layer has had no forward: a loss with its graph could not be copied.
        return {**self.__dict__, "_auxiliary": None}

    def _logits(self, tokens: Tensor) -> Tensor:
        """Return the router's logits (T, E), in float32 or wider as in Switch Transformer, section 2.4."""
        with full_precision(tokens):
            return F.linear(at_least_float32(tokens), at_least_float32(self.router.weight))

    def _choose(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights and indices (T, k) of each token's experts."""
        weights, experts = logits.softmax(-1).topk(self.top_k, dim=-1)
        return weights / weights.sum(-1, keepdim=True) if self.renormalise else weights, experts

    def _weighted_losses(self, logits: Tensor, counts: Tensor) -> Tensor:
        n_tokens = max(len(logits), 1)
        shares, means = counts / n_tokens, logits.softmax(-1).sum(0) / n_tokens
        balance = self.n_experts * (shares * means).sum()
        z = logits.logsumexp(-1).square().sum() / n_tokens
        return self.balance_weight * balance + self.z_weight * z


class _Experts(nn.Module):
    """One matrix an expert, `weight` (E, d_out, d_in), each drawn as `nn.Linear` draws its own."""

    def __init__(self, n_experts: int, d_in: int, d_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_experts, d_out, d_in).uniform_(-1, 1) * d_in**-0.5)

    def forward(self, x: Tensor, bounds: Tensor) -> Tensor:
        return grouped_linear(x, self.weight, bounds)


def _as_autocast_would(x: Tensor) -> Tensor:
    """Return x in the dtype in which autocast would multiply it: the op itself is out of its reach."""
    device_type = x.device.type
    return x.to(torch.get_autocast_dtype(device_type)) if torch.is_autocast_enabled(device_type) else x


def _check_choice(n_experts: int, top_k: int, *, renormalise: bool) -> None:
    if top_k > n_experts:
        raise ArgumentError(f"moe: top_k is {top_k}, allowed is <= n_experts={n_experts}")
    if top_k == 1 and renormalise:
        raise ArgumentError(
            "moe: renormalise is True with top_k=1, which makes every weight 1: allowed is False"
        )
