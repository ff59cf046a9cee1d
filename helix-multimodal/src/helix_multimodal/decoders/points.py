"""The decoder `points`: spheres that a network folds into a cloud, and the Chamfer distance of clouds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from helix_kernel.errors import ArgumentError
from helix_multimodal.checks import check_at_least
from helix_multimodal.encoders.batches import check_batch, own_values
from helix_multimodal.encoders.point_tables import point_table
from helix_multimodal.inputs import Padded, Tokens, pool
from helix_multimodal.modalities.point_cloud import checked_features

if TYPE_CHECKING:
    from collections.abc import Sequence

_GOLDEN_ANGLE = math.pi * (3 - 5**0.5)
_MOST_PAIRS = 1 << 22
"""Pairs of points whose distances are held at once."""

_MOST_LOG = 20.0


class Points(nn.Module):
    """A cloud from tokens: each token folds its share of the points, twice, from a sphere.

    Yang et al. (2018), FoldingNet, arXiv:1712.07262, section 3.2, from spheres in place of a square and with
    a code for each part of the cloud in place of one for the whole. Where the cloud lies, and its size, come
    from the mean of the tokens. The order of the points means nothing.

    Args:
        d_model: Width D of the tokens.
        features: What the columns after x, y, z hold, as the modality has them.
        d_hidden: Width of the networks that fold; None for 2 d_model.

    Raises:
        ArgumentError: A size is below 1, or a feature is unknown.
    """

    modality = "point-cloud"

    def __init__(self, d_model: int, *, features: Sequence[str] = (), d_hidden: int | None = None) -> None:
        super().__init__()
        d_hidden = 2 * d_model if d_hidden is None else d_hidden
        check_at_least("points", d_model=d_model, d_hidden=d_hidden)
        self.width = 3 + 3 * len(checked_features(features))
        self.place = nn.Linear(d_model, 4)
        self.first = _Fold(d_model, d_hidden, 3)
        self.second = _Fold(d_model, d_hidden, self.width)

    def forward(self, tokens: Tokens, like: Padded) -> Tensor:
        """Predict points (B, N, 3 + 3 for each feature), as many as there are places in the batch.

        Raises:
            ArgumentError: The batch is not of point clouds.
        """
        check_batch("points", like, self.modality)
        return self._cloud(tokens, like.sizes[:, 0], like.values.shape[1])

    def loss(self, prediction: Tensor, target: Padded) -> Tensor:
        """Return the distance of clouds, (B,): 0 where a sample is missing.

        That is the Chamfer distance over the mean squared distance of the target's points from their mean,
        so that it does not depend on the unit; for each feature column, the mean squared difference of the
        points that the Chamfer distance pairs is added.

        Raises:
            ArgumentError: The target is not of point clouds, or has fewer columns than the prediction.
        """
        own = target.within(0)
        table = point_table("points", target, prediction.shape[2]).to(prediction.dtype)
        pairs = _pairs(prediction, table, own, own)
        total = sum(_mean(side.square()[..., :3].sum(-1), own) for side in pairs) / _spread(table, own)
        return total + sum(_mean(side.square()[..., 3:].sum(-1), own) for side in pairs)

    @torch.no_grad()
    def reconstruct(self, tokens: Tokens, sizes: Tensor) -> Padded:
        """Return clouds of the sizes (B, 2) as float32.

        Raises:
            ArgumentError: A cloud is to have other columns than the features say.
        """
        present = (sizes > 0).all(-1)
        if (sizes[present, 1] != self.width).any():
            raise ArgumentError(
                f"points: sizes ask for {sizes[present, 1].tolist()} columns, allowed is {self.width}"
            )
        n_points = max(1, int(sizes[:, 0].max())) if len(sizes) else 1
        cloud = Padded(self._cloud(tokens, sizes[:, 0], n_points).float(), sizes)
        return Padded(own_values(cloud), sizes)

    def _cloud(self, tokens: Tokens, n_points: Tensor, n: int) -> Tensor:
        """Return clouds (B, n, width), of which the first n_points (B,) are each row's own."""
        x = tokens.values.masked_fill(~tokens.mask.unsqueeze(-1), 0)
        order = (~tokens.mask).long().argsort(dim=1, stable=True).unsqueeze(-1).expand_as(x)
        x, n_tokens = x.gather(1, order), tokens.mask.sum(1, keepdim=True).clamp(min=1)
        places = torch.arange(n, device=x.device)
        whose, turn = places % n_tokens, places // n_tokens
        share = (n_points.unsqueeze(1) - whose + n_tokens - 1) // n_tokens
        surface = sphere(turn, share.clamp(min=1)).to(x.dtype)
        folded = self.second(self.first(surface, x, whose), x, whose)
        place = self.place(pool(tokens)).clamp(-_MOST_LOG, _MOST_LOG).unsqueeze(1)
        points = folded[..., :3] * place[..., 3:].exp() + place[..., :3].sinh()
        return torch.cat([points, folded[..., 3:]], dim=-1)


class _Fold(nn.Module):
    """A network on points (B, N, 3), to each of which its token is told."""

    def __init__(self, d_model: int, d_hidden: int, d_out: int) -> None:
        super().__init__()
        self.of_point = nn.Linear(3, d_hidden)
        self.of_token = nn.Linear(d_model, d_hidden, bias=False)
        self.out = nn.Sequential(
            nn.GELU(), nn.Linear(d_hidden, d_hidden), nn.GELU(), nn.Linear(d_hidden, d_out)
        )

    def forward(self, points: Tensor, tokens: Tensor, whose: Tensor) -> Tensor:
        told = self.of_token(tokens)
        told = told.gather(1, whose.unsqueeze(-1).expand(-1, -1, told.shape[-1]))
        y: Tensor = self.out(self.of_point(points) + told)
        return y


def sphere(places: Tensor, n: Tensor) -> Tensor:
    """Return points of the unit sphere, the places-th of n that a spiral spreads evenly: (…, 3) float32."""
    height = 1 - (2 * places + 1) / n
    around = places * _GOLDEN_ANGLE
    reach = (1 - height.square()).clamp(min=0).sqrt()
    return torch.stack([reach * around.cos(), reach * around.sin(), height], dim=-1)


def chamfer(x: Tensor, y: Tensor, x_mask: Tensor, y_mask: Tensor) -> Tensor:
    """Return the Chamfer distance of each row's two clouds, (B,).

    It is the mean over the points of x of the squared distance to the nearest of y, plus the same with x and
    y exchanged (Fan et al. 2017, arXiv:1612.00603, section 3.2, with means for sums).

    Args:
        x: Points (B, N, 3).
        y: Points (B, M, 3).
        x_mask: Which points of x there are, bool (B, N).
        y_mask: Which points of y there are, bool (B, M). A row that lacks one of the clouds has 0.
    """
    there, back = _pairs(x, y, x_mask, y_mask)
    both = x_mask.any(1) & y_mask.any(1)
    distance = _mean(there.square().sum(-1), x_mask) + _mean(back.square().sum(-1), y_mask)
    return distance.masked_fill(~both, 0)


def _pairs(x: Tensor, y: Tensor, x_mask: Tensor, y_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return each point less the nearest of the other cloud, by the first three columns: of x, and of y."""
    rows = torch.arange(len(x), device=x.device).unsqueeze(1)
    there = x - y[rows, _nearest(x, y, y_mask)]
    back = y - x[rows, _nearest(y, x, x_mask)]
    return there.masked_fill(~x_mask.unsqueeze(-1), 0), back.masked_fill(~y_mask.unsqueeze(-1), 0)


@torch.no_grad()
def _nearest(x: Tensor, y: Tensor, y_mask: Tensor) -> Tensor:
    """Return the index of the point of y nearest to each of x, (B, N)."""
    n_rows = max(1, _MOST_PAIRS // max(1, y.shape[0] * y.shape[1]))
    found = []
    for part in torch.split(x, n_rows, dim=1):
        away = sum((part[:, :, None, axis] - y[:, None, :, axis]).square() for axis in range(3))
        assert isinstance(away, Tensor)
        found.append(away.masked_fill(~y_mask.unsqueeze(1), torch.inf).argmin(2))
    return torch.cat(found, dim=1)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of each row's own values, (B,); 0 where it has none."""
    return values.masked_fill(~mask, 0).sum(1) / mask.sum(1).clamp(min=1)


def _spread(table: Tensor, own: Tensor) -> Tensor:
    """Return the mean squared distance of points from their mean, (B,); 1 where they are all one point."""
    points = table[..., :3]
    middle = points.sum(1) / own.sum(1, keepdim=True).clamp(min=1)
    spread = _mean((points - middle.unsqueeze(1)).square().sum(-1), own)
    return torch.where(spread > 0, spread, 1)
