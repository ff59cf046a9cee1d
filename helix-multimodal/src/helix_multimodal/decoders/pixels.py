"""The decoder `pixels`: a picture from tokens, square by square."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor, nn

from helix_kernel.errors import ArgumentError
from helix_multimodal.checks import check_at_least
from helix_multimodal.decoders.queries import GridQueries
from helix_multimodal.encoders.batches import check_batch, own_places, unit_values
from helix_multimodal.encoders.boxes import assemble, box_mask
from helix_multimodal.encoders.colours import Channels, from_channels, to_channels
from helix_multimodal.inputs import Padded, Tokens
from helix_multimodal.trunk import LayerFactory, Trunk

if TYPE_CHECKING:
    from collections.abc import Sequence

Depth = Literal[8, 16]


class Pixels(nn.Module):
    """pixels = linear(trunk(queries of squares, asked of the tokens)); see `GridQueries`.

    All squares are made at once and know of their neighbours only through `layers`. The loss is the mean
    squared error of a row's pixels in 0 to 1, so that 10 log10(1 / loss) is its PSNR.

    Args:
        d_model: Width D of the tokens.
        patch: Side of a square, in pixels.
        channels: What is predicted: 1 grey, 3 colours, 4 colours and alpha. Pictures that have other
            channels are compared as such, see `to_channels`, and made from it.
        depth: Bits of a pixel that `reconstruct` makes: 8 as uint8, 16 as int32.
        n_layers: Rounds in which squares ask the tokens.
        n_heads: Heads of the attention; they divide D.
        layers: Build layers that squares go through then; see `Trunk`.

    Raises:
        ArgumentError: An option is out of range.
    """

    modality = "image"

    def __init__(
        self,
        d_model: int,
        *,
        patch: int = 8,
        channels: Channels = 3,
        depth: Depth = 8,
        n_layers: int = 2,
        n_heads: int = 4,
        layers: Sequence[LayerFactory] = (),
    ) -> None:
        super().__init__()
        check_at_least("pixels", d_model=d_model, patch=patch, n_layers=n_layers, n_heads=n_heads)
        for option, given, allowed in (("channels", channels, Channels), ("depth", depth, Depth)):
            if given not in get_args(allowed):
                raise ArgumentError(f"pixels: {option} is {given}, allowed is {get_args(allowed)}")
        self.channels, self.box, self.depth = channels, (patch, patch), depth
        self.queries = GridQueries(d_model, 2, n_layers=n_layers, n_heads=n_heads)
        self.trunk = Trunk(d_model, layers)
        self.out_proj = nn.Linear(d_model, channels * patch * patch)

    def forward(self, tokens: Tokens, like: Padded) -> Tensor:
        """Return pixels (B, channels, H, W), about 0 to 1, for pictures of the sizes of `like`.

        Raises:
            ArgumentError: `like` is not of pictures.
        """
        check_batch("pixels", like, self.modality)
        return self._drawn(tokens, like.sizes, (like.values.shape[2], like.values.shape[3]))

    def loss(self, prediction: Tensor, target: Padded) -> Tensor:
        """Return the mean squared error of each row, (B,); 0 for a missing picture.

        Raises:
            ArgumentError: The target is not of pictures.
        """
        check_batch("pixels", target, self.modality)
        pixels = to_channels(unit_values(target, prediction.dtype), target.sizes[:, 0], self.channels)
        own = own_places(target)[:, :1]
        height, width = pixels.shape[2:]
        errors = (prediction[..., :height, :width] - pixels).square().masked_fill(~own, 0)
        counts = (own.flatten(1).sum(1) * self.channels).clamp(min=1)
        return errors.flatten(1).sum(1) / counts

    @torch.no_grad()
    def reconstruct(self, tokens: Tokens, sizes: Tensor) -> Padded:
        """Return pictures of the sizes (B, 3) of C, H, W: clamped and rounded."""
        longest = sizes.clamp(min=1).max(0).values.tolist()
        drawn = self._drawn(tokens, sizes, (longest[1], longest[2])).clamp(0, 1)
        pixels = from_channels(drawn, sizes[:, 0])[:, : longest[0]]
        dtype, top = (torch.uint8, 255) if self.depth == 8 else (torch.int32, 65535)
        made = Padded((pixels * top).round().to(dtype), sizes)
        return Padded(made.values.masked_fill(~own_places(made), 0), sizes)

    def _drawn(self, tokens: Tokens, sizes: Tensor, edges: tuple[int, int]) -> Tensor:
        grid = (-(-edges[0] // self.box[0]), -(-edges[1] // self.box[1]))
        asked = Tokens(self.queries(tokens, grid), box_mask(sizes[:, 1:], grid, self.box))
        squares = self.out_proj(self.trunk(asked).values)
        return assemble(squares, grid, self.box)[..., : edges[0], : edges[1]] + 0.5
