"""Layer normalisation of Ba et al. (2016), arXiv:1607.06450, over all channels or groups of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helix_kernel.errors import ArgumentError
from helix_ssm.layers.protocol import check_at_least, check_chunk


class LayerNorm(nn.Module):
    """Bring each token to mean zero and variance one, then scale and shift it as learnt (equation 4).

    With several groups of neighbouring channels each group is normalised apart: the group norm of Wu and
    He (2018), arXiv:1803.08494, equation 7, but within one token, so that it stays causal. Heads are such
    groups.

    Args:
        d_model: Width D of input and output.
        n_groups: Number of groups, a divisor of d_model.
        eps: Added to the variance, so that a token of equal channels stays finite.
        bias: Whether a learnt bias is added.

    Raises:
        ArgumentError: A size is below 1, n_groups does not divide d_model, or eps is negative.
    """

    def __init__(self, d_model: int, *, n_groups: int = 1, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__()
        check_at_least("layer-norm", "d_model", d_model, 1)
        check_at_least("layer-norm", "n_groups", n_groups, 1)
        check_at_least("layer-norm", "eps", eps, 0)
        if d_model % n_groups:
            raise ArgumentError(
                f"layer-norm: n_groups is {n_groups}, allowed is a divisor of d_model={d_model}"
            )
        self.d_model, self.n_groups, self.eps = d_model, n_groups, eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, L, D) to (B, L, D), each token on its own."""
        check_chunk("layer-norm", x, self.d_model)
        if self.n_groups == 1:
            return F.layer_norm(x, (self.d_model,), self.weight, self.bias, self.eps)
        tokens = x.reshape(-1, self.d_model)
        return F.group_norm(tokens, self.n_groups, self.weight, self.bias, self.eps).view(x.shape)

    def extra_repr(self) -> str:
        """What `print` shows between the brackets."""
        return f"{self.d_model}, n_groups={self.n_groups}, eps={self.eps:g}"
