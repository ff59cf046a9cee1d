"""Pictures changed at random in training."""

import torch

from helix_multimodal.encoders.image_patches import ImagePatches
from helix_multimodal.encoders.jitter import jittered
from helix_multimodal.inputs import pad


def test_nothing_changes_at_0():
    pixels = torch.rand(3, 3, 9, 7)
    assert jittered(pixels, 0) is pixels


def test_each_picture_changes_in_its_own_way_and_stays_a_picture():
    torch.manual_seed(0)
    pixels = torch.rand(1, 3, 16, 16).expand(20, -1, -1, -1)
    found = jittered(pixels, 1.0)
    assert found.shape == pixels.shape
    assert found.min() >= 0
    assert found.max() <= 1
    assert len({tuple(picture.flatten().tolist()) for picture in found}) == 20


def test_half_of_the_pictures_are_mirrored():
    torch.manual_seed(0)
    ramp = torch.linspace(0, 1, 33).expand(400, 1, 33, 33)
    middle = jittered(ramp, 1.0)[:, 0, 16]
    mirrored = (middle[:, 0] > middle[:, -1]).float().mean()
    assert 0.4 < mirrored < 0.6


def test_evaluation_changes_nothing():
    batch = pad([torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)])
    torch.manual_seed(0)
    encoder = ImagePatches(8, jitter=0.5)
    assert not encoder(batch).values.equal(encoder(batch).values)
    encoder.eval()
    assert encoder(batch).values.equal(encoder(batch).values)
