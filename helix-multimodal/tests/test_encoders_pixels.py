"""Squares and boxes of pixels, where they are, and their colours."""

import pytest
import torch
from torch.nn import functional as F

from helix_kernel.errors import ArgumentError
from helix_multimodal.encoders.boxes import assemble, box_mask, cut
from helix_multimodal.encoders.colours import to_channels
from helix_multimodal.encoders.image_patches import ImagePatches
from helix_multimodal.encoders.positions import Positions
from helix_multimodal.encoders.video_tubelets import VideoTubelets
from helix_multimodal.inputs import pad


def drawn(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_linear_maps_of_squares_are_a_convolution():
    pixels = (drawn(2, 3, 12, 16) * 255).to(torch.uint8)
    encoder = ImagePatches(8, patch=4, positions="none").double()
    weight = encoder.in_proj.weight.view(8, 3, 4, 4)
    expected = F.conv2d(pixels.double() / 255, weight, encoder.in_proj.bias, stride=4)
    found = encoder(pad(list(pixels))).values
    torch.testing.assert_close(found, expected.flatten(2).mT)


def test_linear_maps_of_boxes_are_a_convolution():
    frames = (drawn(2, 6, 3, 8, 12) * 255).to(torch.uint8)
    encoder = VideoTubelets(8, patch=4, depth=2, positions="none").double()
    weight = encoder.in_proj.weight.view(8, 3, 2, 4, 4)
    x = frames.double().transpose(1, 2) / 255
    expected = F.conv3d(x, weight, encoder.in_proj.bias, stride=(2, 4, 4))
    torch.testing.assert_close(encoder(pad(list(frames))).values, expected.flatten(2).mT)


@pytest.mark.parametrize(
    ("shape", "box"), [((2, 3, 8, 12), (4, 4)), ((1, 1, 4, 6, 9), (2, 3, 3)), ((2, 2, 6), (3,))]
)
def test_boxes_are_put_together_again(shape, box):
    values = drawn(*shape)
    boxes, grid = cut(values, box)
    assert assemble(boxes, grid, box).equal(values)


def test_a_box_that_reaches_beyond_the_edge_is_there():
    mask = box_mask(torch.tensor([[5, 4], [1, 9], [0, 0]]), (2, 3), (4, 4))
    assert mask.view(3, 2, 3).long().tolist() == [
        [[1, 0, 0], [1, 0, 0]],
        [[1, 1, 1], [0, 0, 0]],
        [[0, 0, 0], [0, 0, 0]],
    ]


def test_16_bits_are_as_the_same_picture_of_8():
    eight = (drawn(3, 8, 8) * 255).to(torch.uint8)
    encoder = ImagePatches(8, patch=4).double()
    found = encoder(pad([eight.to(torch.int32) * 257])).values
    torch.testing.assert_close(found, encoder(pad([eight])).values)


@pytest.mark.parametrize(
    ("given", "channels", "expected"),
    [
        ([0.5], 1, [0.5]),
        ([0.5], 3, [0.5] * 3),
        ([0.5], 4, [0.5, 0.5, 0.5, 1.0]),
        ([0.5, 0.5], 3, [0.25] * 3),
        ([0.5, 0.5], 4, [0.5] * 4),
        ([1.0, 0.0, 0.0], 1, [0.299]),
        ([0.1, 0.2, 0.3], 3, [0.1, 0.2, 0.3]),
        ([0.2, 0.4, 0.6, 0.5], 3, [0.1, 0.2, 0.3]),
        ([0.2, 0.4, 0.6, 0.5], 4, [0.2, 0.4, 0.6, 0.5]),
    ],
)
def test_channels(given, channels, expected):
    pixel = torch.tensor(given, dtype=torch.float64).view(1, -1, 1, 1)
    found = to_channels(pixel, torch.tensor([len(given)]), channels)
    torch.testing.assert_close(found.flatten(), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("kind", ["sinusoidal", "learned"])
def test_every_place_of_a_grid_has_a_vector_of_its_own(kind):
    torch.manual_seed(0)
    vectors = Positions(16, 2, kind).double()((9, 17), drawn(1))
    distances = torch.cdist(vectors, vectors) + 10 * torch.eye(len(vectors))
    assert distances.min() > 1e-2


def test_a_place_has_the_same_vector_on_grids_of_any_size():
    positions, like = Positions(12, 2, "sinusoidal"), drawn(1)
    small, large = positions((3, 4), like).view(3, 4, 12), positions((5, 9), like).view(5, 9, 12)
    torch.testing.assert_close(small, large[:3, :4])


def test_positions_are_sines_and_cosines():
    found = Positions(4, 1, "sinusoidal")((3,), drawn(1))
    p = torch.arange(3, dtype=torch.float64)
    expected = torch.stack([p.sin(), p.cos(), (p / 1e4).sin(), (p / 1e4).cos()], 1)
    torch.testing.assert_close(found, expected)


def test_wrong_options_are_refused():
    with pytest.raises(ArgumentError, match="channels is 2"):
        ImagePatches(8, channels=2)
    with pytest.raises(ArgumentError, match=r"(?s)positions is 'sinusoid'.*sinusoidal"):
        ImagePatches(8, positions="sinusoid")
    with pytest.raises(ArgumentError, match="depth is 0, allowed is >= 1"):
        VideoTubelets(8, depth=0)
