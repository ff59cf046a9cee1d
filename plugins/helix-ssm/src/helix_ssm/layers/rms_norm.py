"""Root-mean-square normalisation of Zhang and Sennrich (2019), arXiv:1910.07467."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from helix_ssm import ops
from helix_ssm.layers.protocol import check_at_least, check_chunk


class RMSNorm(nn.Module):
    """Scale each token to a root mean square of one, then by a learnt weight (equation 4).

    Args:
        d_model: Width D of input and output.
        eps: Added to the mean square, so that a token of zeros stays finite.

    Raises:
        ArgumentError: d_model is below 1 or eps is negative.
    """

    def __init__(self, d_model: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        check_at_least("rms-norm", "d_model", d_model, 1)
        check_at_least("rms-norm", "eps", eps, 0)
        self.d_model, self.eps = d_model, eps
        self.weight = nn.Parameter(torch.ones(d_model))

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, L, D) to (B, L, D), each token on its own."""
        check_chunk("rms-norm", x, self.d_model)
        return ops.rms_norm(x, self.weight, eps=self.eps)

    def extra_repr(self) -> str:
        """What `print` shows between the brackets."""
        return f"{self.d_model}, eps={self.eps:g}"
