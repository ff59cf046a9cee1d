"""Clouds are compared as SciPy compares them, and learned from tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from helix_kernel.errors import ArgumentError
from helix_multimodal.decoders import points as module
from helix_multimodal.decoders.points import Points, chamfer, sphere
from helix_multimodal.encoders.point_groups import PointGroups
from helix_multimodal.inputs import Padded, Tokens, pad
from helix_multimodal.testing.decoders import DecoderSuite


class TestBarePoints(DecoderSuite):
    def make_decoder(self):
        return Points(self.d_model)


class TestPointsWithFeatures(DecoderSuite):
    def make_decoder(self):
        return Points(self.d_model, features=["colours"], d_hidden=12)

    def make_batch(self, modality):
        generator = torch.Generator().manual_seed(0)
        return pad([torch.rand(n, 6, generator=generator) if n else None for n in (19, 2, 0, 8)])

    def make_pair(self, modality):
        generator = torch.Generator().manual_seed(0)
        return pad([torch.rand(19, 6, generator=generator) for _ in range(2)])


def scipy_chamfer(x, y):
    there, back = cKDTree(y).query(x)[0], cKDTree(x).query(y)[0]
    return (there**2).mean() + (back**2).mean()


def clouds(sizes, seed=0, columns=3):
    """Return clouds of some sizes, with NaN wherever no point is."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(n, columns, generator=generator, dtype=torch.float64) if n else None for n in sizes]
    batch = pad(drawn, like=torch.zeros(0, columns, dtype=torch.float64))
    return batch.values.masked_fill(~batch.within(0).unsqueeze(-1), torch.nan), batch.within(0)


def some_tokens(n_rows, n_tokens=5, d_model=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(n_rows, n_tokens, d_model, generator=generator)
    return Tokens(values, torch.ones(n_rows, n_tokens, dtype=torch.bool))


def test_chamfer_is_that_of_scipy_in_float64():
    x, x_mask = clouds([40, 1, 7, 0, 5])
    y, y_mask = clouds([23, 9, 1, 4, 0], seed=1)
    found = chamfer(x, y, x_mask, y_mask)
    for row in range(3):
        expected = scipy_chamfer(x[row][x_mask[row]].numpy(), y[row][y_mask[row]].numpy())
        np.testing.assert_allclose(found[row].item(), expected, rtol=1e-12)
    assert found[3:].tolist() == [0, 0]


def test_chamfer_of_a_cloud_with_itself_is_zero_whatever_its_order():
    x, x_mask = clouds([30, 30])
    order = torch.randperm(30)
    assert chamfer(x, x[:, order], x_mask, x_mask[:, order]).tolist() == [0, 0]


def test_chamfer_in_parts_is_the_same(monkeypatch):
    x, x_mask = clouds([40, 13])
    y, y_mask = clouds([23, 31], seed=1)
    whole = chamfer(x, y, x_mask, y_mask)
    monkeypatch.setattr(module, "_MOST_PAIRS", 100)
    assert chamfer(x, y, x_mask, y_mask).equal(whole)


def test_gradients_of_chamfer_are_those_of_differences():
    x, x_mask = clouds([6, 3])
    y, y_mask = clouds([4, 5], seed=1)
    inputs = [each.nan_to_num().requires_grad_() for each in (x, y)]
    assert torch.autograd.gradcheck(lambda a, b: chamfer(a, b, x_mask, y_mask), inputs)


@pytest.mark.parametrize("n", [1, 2, 100])
def test_a_sphere_is_covered_evenly(n):
    found = sphere(torch.arange(n), torch.tensor(n)).double()
    torch.testing.assert_close(found.norm(dim=1), torch.ones(n, dtype=torch.float64), atol=1e-6, rtol=0)
    if n > 2:
        nearest = cKDTree(found.numpy()).query(found.numpy(), 2)[0][:, 1]
        assert nearest.min() > 0.5 * (4 * np.pi / n) ** 0.5
        assert found.mean(0).abs().max() < 0.05


def test_a_row_is_as_alone_and_what_tokens_hide_makes_no_difference():
    decoder, tokens = Points(8), some_tokens(3)
    mask = torch.tensor([[1, 0, 1, 0, 1], [1, 1, 1, 1, 1], [0, 1, 0, 0, 0]], dtype=torch.bool)
    sizes = torch.tensor([[9, 3], [20, 3], [4, 3]])
    batch = Padded(torch.full((3, 20, 3), torch.nan), sizes)
    hidden = tokens.values.masked_fill(~mask.unsqueeze(-1), 1e3)
    together = decoder(Tokens(hidden, mask), batch)
    for row, n in enumerate([9, 20, 4]):
        own = Tokens(
            tokens.values[row : row + 1][:, mask[row]], torch.ones(1, int(mask[row].sum()), dtype=torch.bool)
        )
        alone = decoder(own, Padded(torch.zeros(1, n, 3), sizes[row : row + 1]))
        torch.testing.assert_close(together[row, :n], alone[0])


def test_the_loss_is_chamfer_over_the_spread_in_any_unit_and_zero_for_missing():
    target, own = clouds([30, 0, 12])
    target = Padded(target, torch.tensor([[30, 3], [0, 0], [12, 3]]))
    prediction, _ = clouds([30, 30, 30], seed=2)
    found = Points(8).loss(prediction, target)
    for row, n in ((0, 30), (2, 12)):
        real = target.values[row, :n].numpy()
        expected = (
            scipy_chamfer(prediction[row, :n].numpy(), real) / ((real - real.mean(0)) ** 2).sum(1).mean()
        )
        np.testing.assert_allclose(found[row].item(), expected, rtol=1e-12)
    assert found[1] == 0
    scaled = Points(8).loss(prediction * 1000, Padded(target.values * 1000, target.sizes))
    torch.testing.assert_close(scaled, found)
    assert own.sum() == 42


def test_features_are_compared_at_the_nearest_points():
    target, _ = clouds([10], columns=6)
    batch = Padded(target, torch.tensor([[10, 6]]))
    decoder, order = Points(8, features=["normals"]), torch.randperm(10)
    assert decoder.loss(target[:, order], batch).item() == 0
    shifted = target[:, order] + torch.tensor([0, 0, 0, 0.5, 0, 0])
    np.testing.assert_allclose(decoder.loss(shifted, batch).item(), 2 * 0.25, rtol=1e-12)


def test_one_point_has_a_loss_that_is_finite():
    batch = pad([torch.tensor([[1e3, 0.0, 0.0]])])
    assert Points(8).loss(torch.zeros(1, 1, 3), batch).tolist() == [2e6]


def test_reconstruct_gives_the_sizes_asked_for():
    decoder = Points(8, features=["colours"])
    sizes = torch.tensor([[5, 6], [0, 0], [1, 6]])
    made = decoder.reconstruct(some_tokens(3), sizes)
    assert (made.values.shape, made.values.dtype) == ((3, 5, 6), torch.float32)
    assert not made.values[1].any()
    assert not made.values[2, 1:].any()
    assert not made.values.requires_grad
    with pytest.raises(ArgumentError, match="columns, allowed is 6"):
        decoder.reconstruct(some_tokens(1), torch.tensor([[4, 3]]))


def test_other_data_are_refused():
    decoder = Points(8, features=["colours"])
    with pytest.raises(ArgumentError, match="point-cloud"):
        decoder(some_tokens(1), pad([torch.zeros(3, dtype=torch.uint8)]))
    with pytest.raises(ArgumentError, match="3 columns"):
        decoder.loss(torch.zeros(1, 4, 6), pad([torch.zeros(4, 3)]))


def test_shapes_that_an_encoder_saw_are_learned():
    """A ring and a slab of different sizes come back nearer to themselves than half their spread."""
    torch.manual_seed(0)
    angle = torch.rand(200) * 2 * torch.pi
    ring = torch.stack([angle.cos() * 5, angle.sin() * 5, torch.zeros(200)], 1)
    slab = torch.rand(150, 3) * torch.tensor([2.0, 1.0, 0.1]) + 3
    batch = pad([ring, slab])
    encoder, decoder = PointGroups(16, n_groups=8, k=16), Points(16)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=5e-3)
    for _ in range(200):
        optimizer.zero_grad()
        loss = decoder.loss(decoder(encoder(batch), batch), batch).mean()
        loss.backward()
        optimizer.step()
    made = decoder.reconstruct(encoder(batch), batch.sizes)
    assert decoder.loss(made.values, batch).max() < 0.1
