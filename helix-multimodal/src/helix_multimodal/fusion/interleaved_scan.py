"""The fusion `interleaved-scan`: tokens of all parts take turns in one scan, as cross-attention's peer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from helix_multimodal.checks import check_at_least
from helix_multimodal.fusion.parts import checked_names, chosen
from helix_multimodal.inputs import Tokens, join, pool
from helix_multimodal.named import named
from helix_multimodal.trunk import LayerFactory, Trunk

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MAMBA = named("layer", "mamba")


class InterleavedScan(nn.Module):
    """The tokens of all parts in the order of their places, (i + ½) / N of each part, through one layer.

    So a token follows those of the other parts that stand at about the same relative place, and a state-space
    layer carries over in linear time what cross-attention looks up in quadratic. With `bidirectional` a
    second layer scans from the end, so that each token has heard of all.

    Args:
        d_model: Width of the tokens.
        d_out: Width of the fused vectors.
        parts: Names of what is fused.
        layer: Builds what scans.
        bidirectional: Whether a second one scans from the end.

    Raises:
        ArgumentError: A size is below 1, there is no part, or one twice.
    """

    def __init__(
        self,
        d_model: int,
        d_out: int,
        parts: Sequence[str],
        *,
        layer: LayerFactory = _MAMBA,
        bidirectional: bool = True,
    ) -> None:
        super().__init__()
        check_at_least("interleaved-scan", d_model=d_model, d_out=d_out)
        self.parts = checked_names("interleaved-scan", parts)
        self.kinds = nn.Parameter(0.02 * torch.randn(len(self.parts), d_model))
        self.onward = Trunk(d_model, [layer])
        self.backward_ = Trunk(d_model, [layer]) if bidirectional else None
        self.out_proj = nn.Linear(d_model, d_out)

    def forward(self, parts: Mapping[str, Tokens]) -> Tensor:
        """Return the fused vectors (B, d_out) of tokens (B, N, D) by part.

        Raises:
            ArgumentError: A part is missing from the mapping, or unknown.
        """
        tokens = chosen("interleaved-scan", parts, self.parts)
        places = torch.cat([_places(part.mask) for part in tokens], 1)
        told = [Tokens(t.values + kind, t.mask) for t, kind in zip(tokens, self.kinds, strict=True)]
        whole = _ordered(join(told), places)
        scanned = pool(self.onward(whole))
        if self.backward_ is not None:
            turned = Tokens(whole.values.flip(1), whole.mask.flip(1))
            scanned = scanned + pool(self.backward_(turned))
        fused: Tensor = self.out_proj(scanned)
        return fused * whole.present.unsqueeze(-1)


def _places(mask: Tensor) -> Tensor:
    """Return where each visible token of a part stands, 0 to 1, (B, N) float64; hidden ones last."""
    count = mask.sum(1, keepdim=True).clamp(min=1)
    places = (mask.cumsum(1) - 0.5) / count.double()
    return places.masked_fill(~mask, 2.0)


def _ordered(tokens: Tokens, places: Tensor) -> Tokens:
    # Where two parts have a token at one place, that of the earlier part comes first.
    order = torch.argsort(places, dim=1, stable=True)
    values = tokens.values.gather(1, order.unsqueeze(-1).expand_as(tokens.values))
    return Tokens(values, tokens.mask.gather(1, order))
