"""The fusion `early-concat`: all tokens in one sequence, through layers of any kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from helix_multimodal.checks import check_at_least
from helix_multimodal.fusion.parts import checked_names, chosen
from helix_multimodal.inputs import Tokens, join, pool
from helix_multimodal.trunk import LayerFactory, Trunk

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class EarlyConcat(nn.Module):
    """y = W · mean(trunk([x_1 + e_1; x_2 + e_2; …])), with a vector e that tells each part from the others.

    What is fused before anything is read is early fusion (Baltrušaitis et al. 2019, "Multimodal machine
    learning: a survey and taxonomy", section 6.1); a sequence of all tokens is that of one-stream
    transformers (Kim et al. 2021, ViLT, section 3.1).

    Args:
        d_model: Width of the tokens.
        d_out: Width of the fused vectors.
        parts: Names of what is fused.
        layers: Build the layers that the sequence goes through; see `Trunk`.

    Raises:
        ArgumentError: A size is below 1, there is no part, or one twice.
    """

    def __init__(
        self, d_model: int, d_out: int, parts: Sequence[str], *, layers: Sequence[LayerFactory] = ()
    ) -> None:
        super().__init__()
        check_at_least("early-concat", d_model=d_model, d_out=d_out)
        self.parts = checked_names("early-concat", parts)
        self.kinds = nn.Parameter(0.02 * torch.randn(len(self.parts), d_model))
        self.trunk = Trunk(d_model, layers)
        self.out_proj = nn.Linear(d_model, d_out)

    def forward(self, parts: Mapping[str, Tokens]) -> Tensor:
        """Return the fused vectors (B, d_out) of tokens (B, N, D) by part.

        Raises:
            ArgumentError: A part is missing from the mapping, or unknown.
        """
        tokens = chosen("early-concat", parts, self.parts)
        told = [Tokens(t.values + kind, t.mask) for t, kind in zip(tokens, self.kinds, strict=True)]
        whole = join(told)
        fused: Tensor = self.out_proj(pool(self.trunk(whole)))
        return fused * whole.present.unsqueeze(-1)
