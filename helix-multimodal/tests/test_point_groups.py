"""Groups of points are those that PointNet++ would choose, whatever the points' order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from helix_kernel.errors import ArgumentError
from helix_multimodal.encoders.point_groups import (
    PointGroups,
    farthest_points,
    in_one_order,
    in_unit_ball,
    nearest,
)
from helix_multimodal.inputs import Padded, pad
from helix_multimodal.testing.encoders import EncoderSuite


class TestNearest(EncoderSuite):
    def make_encoder(self):
        return PointGroups(self.d_model, n_groups=6, k=4)


class TestBall(EncoderSuite):
    def make_encoder(self):
        return PointGroups(self.d_model, radius=0.5, place=False, d_hidden=5)


class TestFeatures(EncoderSuite):
    def make_encoder(self):
        return PointGroups(self.d_model, features=["normals"], k=3)

    def make_batch(self, modality):
        if modality is None:
            return super().make_batch(modality)
        generator = torch.Generator().manual_seed(0)
        return pad([torch.rand(n, 6, generator=generator) if n else None for n in (19, 2, 0, 8)])


def cloud(kind, n, seed=0):
    """Return points at random, or of a lattice, where many distances are the same."""
    draw = np.random.default_rng(seed)
    if kind == "random":
        return torch.from_numpy(draw.standard_normal((n, 3)))
    if kind == "lattice":
        return torch.from_numpy(draw.permutation(np.indices((6, 6, 6)).reshape(3, -1).T)[:n].astype(float))
    return torch.from_numpy(draw.integers(0, 2, (n, 3)).astype(float))


def whole(points):
    return torch.ones(points.shape[:2], dtype=torch.bool)


KINDS = ["random", "lattice", "repeated"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_points_makes_no_difference(kind):
    points = cloud(kind, 90).float()
    encoder = PointGroups(16, n_groups=20, k=8)
    expected = encoder(pad([points]))
    for seed in range(3):
        order = torch.randperm(90, generator=torch.Generator().manual_seed(seed))
        found = encoder(pad([points[order]]))
        assert found.values.equal(expected.values)
        assert found.mask.equal(expected.mask)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", [0, 1])
def test_a_cloud_beside_a_larger_one_has_the_same_groups(kind, place):
    points = cloud(kind, 70).float()
    samples = [cloud("random", 333, seed=5).float()]
    samples.insert(place, points)
    encoder = PointGroups(16, n_groups=20, k=8, place=False)
    alone, beside = encoder(pad([points])), encoder(pad(samples))
    torch.testing.assert_close(beside.values[place], alone.values[0], rtol=0, atol=2e-6)
    assert beside.mask[place].equal(alone.mask[0])


@pytest.mark.parametrize("kind", ["random", "lattice"])
def test_farthest_points_are_those_of_the_plain_algorithm(kind):
    points, own = in_one_order(cloud(kind, 100).unsqueeze(0), torch.ones(1, 100, dtype=torch.bool))
    chosen, _ = farthest_points(points, own, 30)
    table, expected = points[0].numpy(), []
    away = (table**2).sum(1)
    for at in range(30):
        expected.append(int(np.argmax(away)))
        new = ((table - table[expected[-1]]) ** 2).sum(1)
        away = new if at == 0 else np.minimum(away, new)
    assert chosen[0].tolist() == expected


def test_farthest_points_cover_a_cloud_at_most_twice_as_badly_as_any():
    """Gonzalez (1985): the covering radius is within 2 of the best, hence of that of any choice."""
    points = cloud("random", 400).unsqueeze(0)
    chosen, _ = farthest_points(points, whole(points), 25)
    table = points[0].numpy()
    covered = cKDTree(table[chosen[0].numpy()]).query(table)[0].max()
    draw = np.random.default_rng(0)
    others = [cKDTree(table[draw.choice(400, 25, replace=False)]).query(table)[0].max() for _ in range(50)]
    assert covered <= 2 * min(others)


def test_points_that_coincide_make_no_tokens_of_their_own():
    points = cloud("repeated", 50).float()
    mask = PointGroups(4, n_groups=20, k=3)(pad([points])).mask
    assert mask.sum() == len(points.unique(dim=0))


@pytest.mark.parametrize("radius", [None, 0.7])
def test_nearest_are_those_of_scipy(radius):
    points = cloud("random", 300).unsqueeze(0)
    centres = points[:, :40]
    found, inside = nearest(centres, points, whole(points), 12, radius)
    distances, expected = cKDTree(points[0].numpy()).query(centres[0].numpy(), 12)
    assert found[0].tolist() == expected.tolist()
    assert inside[0].numpy().tolist() == (distances <= (radius or np.inf)).tolist()


def test_a_moved_and_scaled_cloud_has_the_same_tokens_where_place_is_left_out():
    points = cloud("random", 80)
    encoder = PointGroups(8, n_groups=10, k=8, place=False).double()
    expected = encoder(pad([points])).values
    found = encoder(pad([points * 4 + torch.tensor([100.0, -3.0, 0.25], dtype=torch.float64)])).values
    torch.testing.assert_close(found, expected)
    told = PointGroups(8, n_groups=10, k=8).double()
    assert not torch.allclose(told(pad([points])).values, told(pad([points * 4])).values)


def test_a_single_point_lies_in_the_middle():
    points, middle, radius = in_unit_ball(torch.tensor([[[5.0, 6.0, 7.0]]]), torch.tensor([[True]]))
    assert points.tolist() == [[[0, 0, 0]]]
    assert (middle.tolist(), radius.tolist()) == ([[5, 6, 7]], [[1]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radius": 0.0}, "radius"),
        ({"k": 0}, "k is 0"),
        ({"features": ["color"]}, "features"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ArgumentError, match=message):
        PointGroups(8, **options)


def test_points_without_the_features_are_refused():
    batch = Padded(torch.zeros(1, 4, 3), torch.tensor([[4, 3]]))
    with pytest.raises(ArgumentError, match="3 columns, allowed are 6"):
        PointGroups(8, features=["colours"])(batch)


def test_missing_samples_alone_have_no_tokens_whatever_their_columns():
    tokens = PointGroups(8, features=["colours"])(pad([None, None], like=torch.zeros(0, 3)))
    assert tokens.mask.tolist() == [[False], [False]]
    assert tokens.values.isfinite().all()
