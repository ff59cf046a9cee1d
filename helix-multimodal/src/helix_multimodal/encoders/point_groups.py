"""The encoder `point-groups`: neighbourhoods of far-apart points of a cloud, each a token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from helix_kernel.errors import ArgumentError
from helix_multimodal.checks import check_at_least
from helix_multimodal.encoders.point_tables import point_table
from helix_multimodal.inputs import Padded, Tokens
from helix_multimodal.modalities.point_cloud import checked_features
from helix_multimodal.trunk import LayerFactory, Trunk

if TYPE_CHECKING:
    from collections.abc import Sequence


class PointGroups(nn.Module):
    """Tokens of a cloud: the set abstraction of PointNet++ with a layer norm for each point.

    Qi et al. (2017), arXiv:1706.02413, section 3.2: centres by farthest point sampling, the k points nearest
    to each, which one network takes relative to their centre, and the largest of what it gives. The cloud is
    moved and scaled before so that a ball of radius 1 around the middle of its bounding box holds it.

    The order of points makes no difference: they are sorted first, so that ties are settled alike. Nor does
    padding: the middle, the distances and the choice of points are free of sums over all points.

    Args:
        d_model: Width D of the tokens.
        features: What the columns after x, y, z hold, as the modality has them.
        n_groups: Tokens of a cloud, at most; it has fewer where fewer points differ.
        k: Points of a neighbourhood.
        radius: How far they may lie from the centre, where the cloud's radius is 1; None for any distance.
        d_hidden: Width of the network of each point; None for d_model.
        place: Whether the tokens also tell where the cloud's middle lies, and its radius, both on scales
            that grow as the logarithm does.
        layers: Build the layers that tokens go through; see `Trunk`.

    Raises:
        ArgumentError: A size is below 1, the radius not above 0, or a feature unknown.
    """

    modality = "point-cloud"

    def __init__(
        self,
        d_model: int,
        *,
        features: Sequence[str] = (),
        n_groups: int = 64,
        k: int = 32,
        radius: float | None = None,
        d_hidden: int | None = None,
        place: bool = True,
        layers: Sequence[LayerFactory] = (),
    ) -> None:
        super().__init__()
        d_hidden = d_model if d_hidden is None else d_hidden
        check_at_least("point-groups", d_model=d_model, n_groups=n_groups, k=k, d_hidden=d_hidden)
        if radius is not None and not radius > 0:
            raise ArgumentError(f"point-groups: radius is {radius}, allowed is > 0")
        self.n_groups, self.k, self.radius, self.place = n_groups, k, radius, place
        self.width = 3 + 3 * len(checked_features(features))
        self.local = nn.Sequential(
            nn.Linear(self.width, d_hidden),
            nn.GELU(),
            nn.Linear(d_hidden, d_hidden),
            nn.LayerNorm(d_hidden),
            nn.GELU(),
            nn.Linear(d_hidden, d_model),
        )
        self.centre = nn.Sequential(
            nn.Linear(7 if place else 3, d_hidden), nn.GELU(), nn.Linear(d_hidden, d_model)
        )
        self.trunk = Trunk(d_model, layers)

    def forward(self, batch: Padded) -> Tokens:
        """Return tokens (B, min(n_groups, N), D).

        Raises:
            ArgumentError: The batch is not of point clouds, or has fewer columns than the features need.
        """
        dtype = next(self.parameters()).dtype
        table = point_table("point-groups", batch, self.width).to(torch.promote_types(dtype, torch.float32))
        table, own = in_one_order(table, batch.within(0))
        points, middle, radius = in_unit_ball(table[..., :3], own)
        chosen, mask = farthest_points(points, own, min(self.n_groups, points.shape[1]))
        centres = _take(points, chosen)
        groups, inside = nearest(centres, points, own, self.k, self.radius)
        local = torch.cat(
            [
                (_take(points, groups) - centres.unsqueeze(2)) * self._zoom(),
                _take(table[..., 3:], groups),
            ],
            dim=-1,
        )
        found = self.local(local.to(dtype)).masked_fill(~inside.unsqueeze(-1), -torch.inf).amax(2)
        where = [centres]
        if self.place:
            whole = torch.cat([middle.asinh(), radius.log()], dim=-1)
            where.append(whole.unsqueeze(1).expand(-1, centres.shape[1], -1))
        x = found + self.centre(torch.cat(where, dim=-1).to(dtype))
        tokens: Tokens = self.trunk(Tokens(x, mask))
        return tokens

    def _zoom(self) -> float:
        """Return what makes distances within a neighbourhood about 1: n of them cover a surface."""
        return self.n_groups**0.5 if self.radius is None else 1 / self.radius


def in_one_order(table: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows (B, N, D) sorted by their columns, the first counting most, with those not own at the end.

    Returns:
        The sorted rows, and which of them are own, (B, N).
    """
    order = torch.arange(table.shape[1], device=table.device).expand(len(table), -1)
    keys = [*table.unbind(-1)[::-1], ~own]
    for key in keys:
        order = order.gather(1, key.gather(1, order).argsort(dim=1, stable=True))
    return _take(table, order), own.gather(1, order)


def in_unit_ball(points: Tensor, own: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Move and scale points (B, N, 3) into the ball of radius 1 around the origin.

    Returns:
        The points; the middle (B, 3) of the bounding box, which is moved to the origin; the radius (B, 1),
        which is 1 where all points are one.
    """
    within = own.unsqueeze(-1)
    least = points.masked_fill(~within, torch.inf).amin(1)
    most = points.masked_fill(~within, -torch.inf).amax(1)
    middle = torch.where(own.any(1, keepdim=True), least + (most - least) / 2, 0)
    moved = points - middle.unsqueeze(1)
    radius = moved.detach().square().sum(-1).masked_fill(~own, 0).amax(1, keepdim=True).sqrt()
    radius = torch.where(radius > 0, radius, 1)
    return (moved / radius.unsqueeze(-1)).masked_fill(~within, 0), middle, radius


@torch.no_grad()
def farthest_points(points: Tensor, own: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Choose points (B, N, 3) that lie far apart: first the farthest from the origin, then from all chosen.

    Returns:
        Their indices (B, n), and which count (B, n): those that differ from all before.
    """
    rows = torch.arange(len(points), device=points.device)
    x, y, z = points.unbind(-1)
    away = torch.where(own, x * x + y * y + z * z, -1)
    next_one = away.argmax(1)
    away = torch.where(own, torch.inf, -1)
    chosen, differs = [], []
    for _ in range(n):
        chosen.append(next_one)
        differs.append(away[rows, next_one] > 0)
        dx, dy, dz = (axis - axis[rows, next_one].unsqueeze(1) for axis in (x, y, z))
        away = torch.minimum(away, dx * dx + dy * dy + dz * dz)
        next_one = away.argmax(1)
    return torch.stack(chosen, 1), torch.stack(differs, 1)


@torch.no_grad()
def nearest(
    centres: Tensor, points: Tensor, own: Tensor, k: int, radius: float | None
) -> tuple[Tensor, Tensor]:
    """Find the points (B, N, 3) nearest to each centre (B, G, 3), of equal ones those that come first.

    Returns:
        Their indices (B, G, min(k, N)), from the nearest on, and which of them are own and no farther than
        the radius; the first always counts.
    """
    pairs = [
        (one.unsqueeze(2) - other.unsqueeze(1)).square()
        for one, other in zip(centres.unbind(-1), points.unbind(-1), strict=True)
    ]
    away = (pairs[0] + pairs[1] + pairs[2]).float().masked_fill(~own.unsqueeze(1), torch.inf)
    # The bits of a float that is not negative grow with it, so that one number tells distance, then place.
    places = torch.arange(points.shape[1], device=points.device)
    keys = away.contiguous().view(torch.int32).long() << 32 | places
    found = keys.topk(min(k, points.shape[1]), largest=False).values & 0xFFFFFFFF
    distances = away.gather(2, found)
    inside = distances <= (torch.finfo(torch.float32).max if radius is None else radius * radius)
    inside[..., 0] = True
    return found, inside


def _take(values: Tensor, indices: Tensor) -> Tensor:
    """Return rows of values (B, N, D) by indices (B, …): (B, …, D)."""
    rows = torch.arange(len(values), device=values.device).view(-1, *(1 for _ in indices.shape[1:]))
    return values[rows, indices]
