"""The encoder `video-tubelets`: boxes of a film, some frames deep, each a token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from helix_multimodal.checks import check_at_least
from helix_multimodal.encoders.batches import check_batch, unit_values
from helix_multimodal.encoders.boxes import box_mask, cut
from helix_multimodal.encoders.positions import Positions, PositionsKind
from helix_multimodal.inputs import Padded, Tokens
from helix_multimodal.trunk import LayerFactory, Trunk

if TYPE_CHECKING:
    from collections.abc import Sequence

_CHANNELS = 3


class VideoTubelets(nn.Module):
    """Tokens of a film: trunk(linear(boxes of pixels) + position), in the order of time, then of reading.

    The tubelet embedding of ViViT (Arnab et al. 2021, arXiv:2103.15691, section 3.2). Films of any size and
    length: a box that reaches beyond them is filled up with zeros.

    Args:
        d_model: Width D of the tokens.
        patch: Side of a box, in pixels.
        depth: Frames of a box.
        positions: What tells where a token is: sinusoidal, learned or none.
        layers: Build the layers that tokens go through; see `Trunk`.

    Raises:
        ArgumentError: A size is below 1, or there are no such positions.
    """

    modality = "video"

    def __init__(
        self,
        d_model: int,
        *,
        patch: int = 8,
        depth: int = 2,
        positions: PositionsKind = "sinusoidal",
        layers: Sequence[LayerFactory] = (),
    ) -> None:
        super().__init__()
        check_at_least("video-tubelets", d_model=d_model, patch=patch, depth=depth)
        self.box = (depth, patch, patch)
        self.in_proj = nn.Linear(_CHANNELS * depth * patch * patch, d_model)
        self.positions = Positions(d_model, 3, positions)
        self.trunk = Trunk(d_model, layers)

    def forward(self, batch: Padded) -> Tokens:
        """Return tokens (B, ceil(T / depth) · ceil(H / patch) · ceil(W / patch), D).

        Raises:
            ArgumentError: The batch is not of films.
        """
        check_batch("video-tubelets", batch, self.modality)
        pixels = unit_values(batch, self.in_proj.weight.dtype)[:, :, :_CHANNELS].transpose(1, 2)
        boxes, grid = cut(pixels, self.box)
        x = self.in_proj(boxes)
        x = x + self.positions(grid, x)
        sizes = batch.sizes[:, [0, 2, 3]] * batch.present[:, None]
        tokens: Tokens = self.trunk(Tokens(x, box_mask(sizes, grid, self.box)))
        return tokens
