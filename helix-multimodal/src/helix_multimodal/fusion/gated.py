"""The fusion `gated`: gates, learned from the parts, weigh the parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from helix_multimodal.checks import check_at_least
from helix_multimodal.fusion.parts import checked_names, chosen, mean_of_present, mixed, stacked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from helix_multimodal.inputs import Tokens


class Gated(nn.Module):
    """y = Σ_p g_p ⊙ tanh(W_p m_p), g = softmax over the parts that are there of V_p [m_1; m_2; …].

    The gated multimodal unit (Arevalo et al. 2017, arXiv:1702.01992, section 3.1), whose gate of two parts is
    a sigmoid and one less it, the softmax of two; m_p is the mean of a part's tokens, zero where it is
    missing.

    Args:
        d_model: Width of the tokens.
        d_out: Width of the fused vectors.
        parts: Names of what is fused.

    Raises:
        ArgumentError: A size is below 1, there is no part, or one twice.
    """

    def __init__(self, d_model: int, d_out: int, parts: Sequence[str]) -> None:
        super().__init__()
        check_at_least("gated", d_model=d_model, d_out=d_out)
        self.parts = checked_names("gated", parts)
        n_parts = len(self.parts)
        self.maps = nn.ModuleList(nn.Linear(d_model, d_out) for _ in self.parts)
        # One part alone needs no gate, and would give it no gradient.
        self.gates = nn.Linear(n_parts * d_model, n_parts * d_out) if n_parts > 1 else None

    def forward(self, parts: Mapping[str, Tokens]) -> Tensor:
        """Return the fused vectors (B, d_out) of tokens (B, N, D) by part.

        Raises:
            ArgumentError: A part is missing from the mapping, or unknown.
        """
        means, present = stacked(chosen("gated", parts, self.parts))
        mapped = [torch.tanh(m(mean)) for m, mean in zip(self.maps, means.unbind(1), strict=True)]
        values = torch.stack(mapped, 1)
        if self.gates is None:
            return mean_of_present(values, present)
        gates: Tensor = self.gates(means.flatten(1)).view(values.shape)
        return mixed(values, gates, present)
