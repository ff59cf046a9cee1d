"""The encoder `image-patches`: squares of a picture, each a token."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from torch import nn

from helix_kernel.errors import ArgumentError
from helix_multimodal.checks import check_at_least
from helix_multimodal.encoders.batches import check_batch, own_places, unit_values
from helix_multimodal.encoders.boxes import box_mask, cut
from helix_multimodal.encoders.colours import Channels, to_channels
from helix_multimodal.encoders.jitter import jittered
from helix_multimodal.encoders.positions import Positions, PositionsKind
from helix_multimodal.inputs import Padded, Tokens
from helix_multimodal.trunk import LayerFactory, Trunk

if TYPE_CHECKING:
    from collections.abc import Sequence


class ImagePatches(nn.Module):
    """Tokens of a picture: trunk(linear(squares of pixels) + position), squares in the order of reading.

    Dosovitskiy et al. (2021), ViT, arXiv:2010.11929, section 3.1, equation 1, without a class token. Pictures
    of any size: a square that reaches beyond the edge is filled up with zeros.

    Args:
        d_model: Width D of the tokens.
        patch: Side of a square, in pixels.
        channels: What pictures are turned to before: 1 grey, 3 colours, 4 colours and alpha; see
            `to_channels`.
        positions: What tells where a token is: sinusoidal, learned or none.
        jitter: How much training changes pictures at random, 0 to 1; see `jittered`.
        layers: Build the layers that tokens go through; see `Trunk`.

    Raises:
        ArgumentError: A size is below 1, or there are no such channels or positions.
    """

    modality = "image"

    def __init__(
        self,
        d_model: int,
        *,
        patch: int = 8,
        channels: Channels = 3,
        positions: PositionsKind = "sinusoidal",
        jitter: float = 0.0,
        layers: Sequence[LayerFactory] = (),
    ) -> None:
        super().__init__()
        check_at_least("image-patches", d_model=d_model, patch=patch)
        if channels not in get_args(Channels):
            raise ArgumentError(f"image-patches: channels is {channels}, allowed is {get_args(Channels)}")
        self.channels, self.box, self.jitter = channels, (patch, patch), jitter
        self.in_proj = nn.Linear(channels * patch * patch, d_model)
        self.positions = Positions(d_model, 2, positions)
        self.trunk = Trunk(d_model, layers)

    def forward(self, batch: Padded) -> Tokens:
        """Return tokens (B, ceil(H / patch) · ceil(W / patch), D).

        Raises:
            ArgumentError: The batch is not of pictures.
        """
        check_batch("image-patches", batch, self.modality)
        pixels = unit_values(batch, self.in_proj.weight.dtype)
        pixels = to_channels(pixels, batch.sizes[:, 0], self.channels)
        if self.training:
            pixels = jittered(pixels, self.jitter)
        pixels = pixels.masked_fill(~own_places(batch)[:, :1], 0)
        squares, grid = cut(pixels, self.box)
        x = self.in_proj(squares)
        x = x + self.positions(grid, x)
        tokens: Tokens = self.trunk(Tokens(x, box_mask(batch.sizes[:, 1:], grid, self.box)))
        return tokens
