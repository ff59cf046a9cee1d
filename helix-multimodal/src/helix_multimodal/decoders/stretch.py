"""As many vectors as data have places, made of as many tokens as there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helix_multimodal.encoders.positions import Positions

if TYPE_CHECKING:
    from helix_multimodal.inputs import Tokens


class Stretch(nn.Module):
    """Each place gets the token that covers it, and how far into that token's stretch it is.

    The n visible tokens of a row share its m places evenly: place i belongs to token floor(i n / m). The
    vector is W token + (a learnt map of sines of the place's number within the stretch). A row without tokens
    is as one whose single token is zero.

    Args:
        d_model: Width D.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.in_proj = nn.Linear(d_model, d_model)
        self.positions = Positions(d_model, 1, "learned")

    def forward(self, tokens: Tokens, lengths: Tensor, longest: int) -> Tensor:
        """Return vectors (B, longest, D) for rows of so many places (B,)."""
        counts = tokens.mask.sum(1, keepdim=True)
        places = torch.arange(longest, device=lengths.device)
        m = lengths[:, None].clamp(min=1)
        covering = (places * counts // m).minimum((counts - 1).clamp(min=0))
        first = -(-covering * m // counts.clamp(min=1))
        # One more, which is hidden, so that a batch without tokens has something to take.
        mask = F.pad(tokens.mask, (0, 1))
        shown = F.pad(tokens.values, (0, 0, 0, 1)).masked_fill(~mask.unsqueeze(-1), 0)
        order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)
        index = order.gather(1, covering).unsqueeze(-1).expand(-1, -1, shown.shape[2])
        within = self.positions((longest,), shown)[(places - first).clamp(min=0)]
        vectors: Tensor = self.in_proj(shown.gather(1, index)) + within
        return vectors
