"""Two causal layers as one that looks both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast, get_args

import torch
from torch import Tensor, nn

from helix_kernel.errors import ArgumentError
from helix_ssm.layers import protocol
from helix_ssm.layers._check import check_choice
from helix_ssm.layers.mamba import Mamba
from helix_ssm.layers.packing import pack, unpack
from helix_ssm.layers.protocol import check_at_least, check_chunk
from helix_ssm.ops._check import check_packed

if TYPE_CHECKING:
    from helix_ssm.layers.block import LayerFactory

Combine = Literal["sum", "concat"]


class Bidirectional(nn.Module):
    """Run one causal layer from the start to the end and one back: combine(f(x), flip(g(flip(x)))).

    Schuster and Paliwal (1997), "Bidirectional recurrent neural networks", section II; around state-space
    layers, Vision Mamba (Zhu et al. 2024, arXiv:2401.09417, section 3.3). A token enters both runs. What
    it gives depends on later tokens, so that there is no state to carry.

    Args:
        d_model: Width D of input and output.
        mixer: Builds the layer of each direction, which must be causal.
        combine: "sum" of both outputs, or "concat": a learnt map of both, side by side, to D.
        share: Whether one layer, with one set of weights, serves both directions.

    Raises:
        ArgumentError: d_model is below 1, there is no such combination, or the mixer itself looks ahead.
    """

    causal = False

    def __init__(
        self, d_model: int, *, mixer: LayerFactory = Mamba, combine: Combine = "sum", share: bool = False
    ) -> None:
        super().__init__()
        check_at_least("bidirectional", "d_model", d_model, 1)
        check_choice("bidirectional", "combine", combine, get_args(Combine))
        self.d_model, self.combine = d_model, combine
        self.ahead = mixer(d_model=d_model)
        self.back = None if share else mixer(d_model=d_model)
        self.out_proj = nn.Linear(2 * d_model, d_model, bias=False) if combine == "concat" else None
        if protocol.looks_ahead(self.ahead):
            raise ArgumentError(
                f"bidirectional: mixer makes {type(self.ahead).__name__}, which looks ahead by itself, "
                "allowed are causal layers"
            )

    def forward(self, x: Tensor, *, mask: Tensor | None = None, cu_seqlens: Tensor | None = None) -> Tensor:
        """Map x to the same shape.

        Args:
            x: (B, L, D).
            mask: Which tokens count (B, L), bool, where rows are padded on either side. What is padding
                changes nothing, and gets zeros.
            cu_seqlens: Instead of a mask: bounds (n + 1,) of n sequences packed into one row x (1, T, D),
                each of which is read back by itself.

        Raises:
            ArgumentError: x, mask or cu_seqlens have another shape or dtype.
        """
        check_chunk("bidirectional", x, self.d_model)
        check_packed(cu_seqlens, x.shape[0])
        if mask is not None:
            packed, cu_seqlens = pack(x, mask)
            return unpack(self(packed, cu_seqlens=cu_seqlens), mask)
        ahead = protocol.forward(self.ahead, x, cu_seqlens)
        reverse = self.ahead if self.back is None else self.back
        back = _flip(protocol.forward(reverse, _flip(x, cu_seqlens), cu_seqlens), cu_seqlens)
        if self.out_proj is None:
            return ahead + back
        return cast("Tensor", self.out_proj(torch.cat([ahead, back], dim=-1)))


def _flip(x: Tensor, cu_seqlens: Tensor | None) -> Tensor:
    """Return x (B, L, D) with each row, or each sequence packed into it, from its end to its start."""
    if cu_seqlens is None:
        return x.flip(1)
    at = torch.arange(x.shape[1], device=x.device)
    sequence = torch.searchsorted(cu_seqlens, at, right=True)
    return x[:, cu_seqlens[sequence - 1] + cu_seqlens[sequence] - 1 - at]
