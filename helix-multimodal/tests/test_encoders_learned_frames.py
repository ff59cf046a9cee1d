"""Sound through strided convolutions."""

import pytest
import torch

from helix_kernel.errors import ArgumentError
from helix_multimodal.encoders.learned_frames import LearnedFrames
from helix_multimodal.inputs import pad


@pytest.mark.parametrize(("length", "n_tokens"), [(1, 1), (20, 1), (21, 2), (200, 10)])
def test_a_token_is_of_as_many_samples_as_the_product_of_strides(length, n_tokens):
    assert LearnedFrames(8, strides=[4, 5])(pad([torch.ones(1, length)])).mask.sum() == n_tokens


def test_tokens_depend_on_no_later_sample():
    torch.manual_seed(0)
    encoder = LearnedFrames(8, strides=[4, 5]).double()
    sound = torch.rand(1, 200, dtype=torch.float64)
    changed = sound.clone()
    changed[:, 100:] = 0
    before, after = (encoder(pad([each])).values for each in (sound, changed))
    assert before[:, :5].equal(after[:, :5])
    assert not torch.allclose(before[:, 5], after[:, 5])


def test_every_sample_counts():
    torch.manual_seed(0)
    encoder = LearnedFrames(8, strides=[4, 5]).double()
    sound = torch.rand(1, 97, dtype=torch.float64, requires_grad=True)
    encoder(pad([sound])).values.square().sum().backward()
    assert (sound.grad != 0).all()


def test_wrong_strides_are_refused():
    for strides in ([], [4, 0]):
        with pytest.raises(ArgumentError, match="strides is 0, allowed is >= 1"):
            LearnedFrames(8, strides=strides)
