"""Sound from tokens and from codes."""

import numpy as np
import pytest
import torch
from scipy.signal import ShortTimeFFT, get_window
from torch import nn

from helix_kernel import default_kernel
from helix_kernel.errors import ArgumentError
from helix_multimodal.decoders.quantized import Quantized
from helix_multimodal.decoders.spectral_distance import spectral_distance
from helix_multimodal.decoders.synthesis import Synthesis
from helix_multimodal.decoders.waveform import Waveform
from helix_multimodal.decoders.waveform_codec import WaveformCodec
from helix_multimodal.inputs import pad
from helix_multimodal.testing.batches import batch_of, beyond, row_of, tokens_for


def quantizer(**options):
    return default_kernel().factory("layer", {"use": "fsq", **options})


def rvq(**options):
    table = {"use": "rvq", "n_quantizers": 2, "n_codes": 16, "kmeans_init": False, **options}
    return default_kernel().factory("layer", table)


def drawn(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1


def test_the_spectral_distance_is_that_of_scipys_spectra():
    x, y = drawn(2, 1, 500)
    found = spectral_distance(x, y, torch.tensor([500]), sizes=[128])
    transform = ShortTimeFFT(get_window("hann", 128), 32, 1.0)
    logs = [
        0.5 * np.log(np.abs(transform.stft(each[0].numpy(), p0=0, p1=16)) ** 2 * 4 / 128 + 1e-6)
        for each in (x, y)
    ]
    assert float(found) == pytest.approx(np.abs(logs[0] - logs[1]).mean(), rel=1e-6)


def test_the_distance_of_a_sound_to_itself_is_zero_and_silence_is_far():
    x = drawn(1, 900)
    lengths = torch.tensor([900])
    assert not spectral_distance(x, x, lengths).any()
    assert float(spectral_distance(x, x * 0, lengths)) > 3


def test_half_precision_is_enough_for_sounds():
    x, y = drawn(2, 1, 500).bfloat16()
    half = spectral_distance(x, y, torch.tensor([500]))
    torch.testing.assert_close(half, spectral_distance(x.float(), y.float(), torch.tensor([500])))


def test_a_sample_depends_on_no_later_vector():
    torch.manual_seed(0)
    synthesis = Synthesis(4, (2, 5), 6).double()
    x = drawn(1, 9, 4)
    changed = x.clone()
    changed[:, 5:] = 0
    one, two = synthesis(x), synthesis(changed)
    assert one.shape == (1, 90)
    assert one[:, :50].equal(two[:, :50])
    assert not torch.allclose(one[:, 50:60], two[:, 50:60])


def test_codes_give_the_sound_that_the_codec_gives():
    torch.manual_seed(0)
    codec = WaveformCodec(8, quantizer=rvq(), strides=(4, 5)).eval()
    batch = pad([drawn(1, 500).float()])
    codes = codec.encode(batch)
    assert codes.shape == (1, 25, 2)
    torch.testing.assert_close(codec.decode(codes), codec(batch))


def test_a_codecs_rows_are_as_alone_whatever_lies_beyond():
    torch.manual_seed(0)
    codec, batch = WaveformCodec(8, quantizer=quantizer(), strides=(4, 5)).double().eval(), batch_of("audio")
    losses = codec.loss(codec(batch), batch)
    more = beyond(batch)
    torch.testing.assert_close(codec.loss(codec(more), more), losses)
    for row in range(4):
        alone = row_of(batch, row)
        torch.testing.assert_close(codec.loss(codec(alone), alone)[0], losses[row])


def test_a_codec_learns_a_tone():
    torch.manual_seed(0)
    tone = 0.5 * (torch.arange(800) * 0.12).sin().unsqueeze(0)
    codec, batch = WaveformCodec(16, quantizer=quantizer(), strides=(4, 5)), pad([tone])
    optimizer = torch.optim.Adam(codec.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        codec.loss(codec(batch), batch).mean().backward()
        optimizer.step()
    error = (codec.eval()(batch).detach() - tone)[0]
    decibel = 10 * torch.log10(tone.square().mean() / error.square().mean())
    assert decibel > 6


def test_padding_moves_no_codebook():
    torch.manual_seed(0)
    plain, padded = (Quantized("test", 8, rvq()).train() for _ in range(2))
    padded.load_state_dict(plain.state_dict())
    x = torch.randn(1, 40, 8)
    filled = torch.cat([x, torch.full((1, 30, 8), 50.0)], 1)
    plain(x, torch.ones(1, 40, dtype=torch.bool))
    padded(filled, (torch.arange(70) < 40)[None])
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(padded.state_dict()[name], value, msg=name)


def test_tokens_become_codes_of_the_sounds_length():
    decoder = Waveform(8, quantizer=rvq(), strides=(4, 5)).eval()
    batch = pad([torch.zeros(1, 101), torch.zeros(2, 30)])
    tokens = tokens_for(batch, 8, missing=False)
    assert decoder.codes(tokens, batch.sizes).shape == (2, 6, 2)
    made = decoder.reconstruct(tokens, batch.sizes)
    assert made.values[1, 0, :30].equal(made.values[1, 1, :30])
    assert not made.values[1, :, 30:].any()
    assert not made.values[0, 1].any()
    assert made.values.abs().max() <= 1


def test_what_makes_no_codes_is_refused():
    for build in (Waveform, WaveformCodec):
        with pytest.raises(ArgumentError, match=r"quantizer is Linear, which has no encode\(\)"):
            build(8, quantizer=lambda d_model: nn.Linear(d_model, d_model))
