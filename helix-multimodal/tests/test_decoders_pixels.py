"""Pictures from tokens."""

import pytest
import torch

from helix_kernel.errors import ArgumentError
from helix_multimodal.decoders.pixels import Pixels
from helix_multimodal.encoders.colours import from_channels
from helix_multimodal.encoders.image_patches import ImagePatches
from helix_multimodal.inputs import Padded, pad
from helix_multimodal.testing.batches import tokens_for


@pytest.mark.parametrize("depth", [8, 16])
def test_the_loss_of_a_picture_with_itself_is_zero_and_that_of_its_reverse_is_known(depth):
    dtype, top = (torch.uint8, 255) if depth == 8 else (torch.int32, 65535)
    picture = torch.randint(top + 1, (3, 5, 6)).to(dtype)
    model, batch = Pixels(8, depth=depth), pad([picture])
    same = picture.double()[None] / top
    assert float(model.loss(same, batch)) == pytest.approx(0, abs=1e-15)
    assert float(model.loss(1 - same, batch)) == pytest.approx(float((1 - 2 * same).square().mean()))


def test_what_it_learnt_by_heart_comes_back():
    torch.manual_seed(0)
    pictures = torch.randint(256, (3, 1, 8, 8), dtype=torch.uint8)
    batch = pad(list(pictures))
    encoder, decoder = ImagePatches(32, patch=4, channels=1), Pixels(32, patch=4, channels=1)
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=0.005)
    for _ in range(400):
        optimizer.zero_grad()
        decoder.loss(decoder(encoder(batch), batch), batch).mean().backward()
        optimizer.step()
    made = decoder.reconstruct(encoder(batch), batch.sizes)
    assert (made.values.int() - batch.values.int()).abs().max() <= 4


@pytest.mark.parametrize(("channels", "own"), [(1, 1), (1, 4), (3, 2), (3, 3), (4, 1), (4, 2), (4, 4)])
def test_pictures_of_any_channels_are_made(channels, own):
    sizes = torch.tensor([[own, 7, 5], [1, 3, 9]])
    model = Pixels(8, patch=4, channels=channels)
    like = Padded(torch.zeros(2, own, 7, 9, dtype=torch.uint8), sizes)
    made = model.reconstruct(tokens_for(like, 8, missing=False), sizes)
    assert made.values.shape == (2, own, 7, 9)
    assert made.values.dtype == torch.uint8


def test_channels_are_turned_back():
    colours = torch.tensor([0.2, 0.4, 0.6, 0.5]).view(1, 4, 1, 1)
    luma = 0.299 * 0.2 + 0.587 * 0.4 + 0.114 * 0.6
    for own, expected in ((1, [luma]), (2, [luma, 0.5]), (3, [0.2, 0.4, 0.6]), (4, [0.2, 0.4, 0.6, 0.5])):
        found = from_channels(colours, torch.tensor([own])).flatten()[:own]
        torch.testing.assert_close(found, torch.tensor(expected))
    assert from_channels(colours[:, :3], torch.tensor([4]))[0, 3] == 1


def test_wrong_options_are_refused():
    with pytest.raises(ArgumentError, match="n_heads is 3, allowed is a divisor of d_model=8"):
        Pixels(8, n_heads=3)
    with pytest.raises(ArgumentError, match="depth is 10"):
        Pixels(8, depth=10)
