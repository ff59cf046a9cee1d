"""The alignment `info-nce`: cosines of vectors over a learned temperature."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from helix_multimodal.alignment.pairs import Directions, Scale, both_there
from helix_multimodal.checks import check_at_least
from helix_multimodal.inputs import Tokens, pool


class InfoNCE(nn.Module):
    """s_ij = cos(U x_i, V y_j) / τ, whose cross-entropy is InfoNCE.

    van den Oord et al. 2018, arXiv:1807.03748, equation 4, with the learned temperature of Radford et al.
    2021, arXiv:2103.00020, section 2.3. Of several tokens in a row it reads the mean.

    Args:
        d_model: Width of the vectors.
        temperature: τ at first.

    Raises:
        ArgumentError: A number is out of range.
    """

    reads: Literal["vectors"] = "vectors"

    def __init__(self, d_model: int, *, temperature: float = 0.07) -> None:
        super().__init__()
        check_at_least("info-nce", d_model=d_model)
        self.directions = Directions(d_model)
        self.scale = Scale(temperature)

    def forward(self, x: Tokens, y: Tokens) -> Tensor:
        """Return scores (B of x, B of y)."""
        left, right = self.directions(_mean(x), _mean(y))
        cosines = left.values[:, 0] @ right.values[:, 0].T
        return both_there(self.scale(cosines), x.present, y.present)


def _mean(tokens: Tokens) -> Tokens:
    shown = Tokens(tokens.values.masked_fill(~tokens.mask.unsqueeze(-1), 0), tokens.mask)
    return Tokens(pool(shown).unsqueeze(1), tokens.present.unsqueeze(1))
