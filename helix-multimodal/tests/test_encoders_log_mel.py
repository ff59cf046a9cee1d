"""Frames of sound against SciPy's FFT and the mel filters of a peer."""

import numpy as np
import pytest
import torch
from scipy.signal import ShortTimeFFT, get_window
from transformers.audio_utils import mel_filter_bank

from helix_kernel.errors import ArgumentError
from helix_multimodal.encoders.log_mel import LogMel
from helix_multimodal.encoders.mel import mel_filters
from helix_multimodal.inputs import pad


@pytest.mark.parametrize("scale", ["slaney", "htk"])
@pytest.mark.parametrize(("rate", "n_fft", "n_mels"), [(16000, 400, 40), (8000, 512, 23), (44100, 1024, 80)])
def test_filters_are_those_of_a_peer(rate, n_fft, n_mels, scale):
    norm = "slaney" if scale == "slaney" else None
    expected = mel_filter_bank(n_fft // 2 + 1, n_mels, 0, rate / 2, rate, norm=norm, mel_scale=scale)
    found = mel_filters(rate, n_fft, n_mels, scale)
    np.testing.assert_allclose(found.numpy(), expected.T, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("n_fft", "hop", "length"), [(400, 160, 1601), (128, 128, 1000), (64, 7, 50)])
def test_features_are_logarithms_of_scipys_energies(n_fft, hop, length):
    rate, n_mels = 8000, 10
    sound = torch.rand(1, length, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    encoder = LogMel(4, rate=rate, n_fft=n_fft, hop=hop, n_mels=n_mels).double()
    window = get_window("hann", n_fft).astype(np.float32).astype(np.float64)
    # SciPy's slice p is centred on p * hop too, and zeros are around the sound.
    spectrum = ShortTimeFFT(window, hop, rate).stft(sound[0].numpy(), p0=0, p1=-(-length // hop))
    mel = (np.abs(spectrum) ** 2).T @ encoder.filters.numpy().T
    expected = (np.log10(np.maximum(mel, 1e-10)) + 4) / 4
    np.testing.assert_allclose(encoder.features(sound)[0].numpy(), expected, rtol=1e-9)


def test_a_tone_is_loudest_in_its_own_band():
    rate, filters = 8000, mel_filters(8000, 400, 20, "slaney")
    encoder = LogMel(4, rate=rate, n_fft=400, hop=160, n_mels=20)
    for band in (2, 9, 17):
        hertz = float(filters[band].argmax()) * rate / 400
        tone = (2 * torch.pi * hertz * torch.arange(4000) / rate).sin().unsqueeze(0)
        assert encoder.features(tone)[0, 10:-10].mean(0).argmax() == band


def test_silence_is_at_the_floor():
    features = LogMel(4).features(torch.zeros(1, 1000))
    torch.testing.assert_close(features, torch.full_like(features, -1.5))


@pytest.mark.parametrize(("length", "n_tokens"), [(1, 1), (320, 1), (640, 1), (641, 2), (6400, 10)])
def test_a_token_is_of_stacked_frames(length, n_tokens):
    encoder = LogMel(4, hop=160, stack=4)
    assert encoder(pad([torch.zeros(1, length)])).mask.sum() == n_tokens


def test_channels_are_averaged():
    left, right = torch.rand(2, 1, 900, generator=torch.Generator().manual_seed(0))
    encoder = LogMel(4)
    both, mean = encoder(pad([torch.cat([left, right])])), encoder(pad([(left + right) / 2]))
    torch.testing.assert_close(both.values, mean.values)


def test_gaps_between_frames_are_refused():
    with pytest.raises(ArgumentError, match=r"n_fft is 100, allowed is >= hop=160"):
        LogMel(4, n_fft=100)


def test_autocast_leaves_energies_as_they_are():
    sound = torch.rand(1, 900, generator=torch.Generator().manual_seed(0)) * 2 - 1
    encoder = LogMel(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = encoder.features(sound)
    assert found.equal(encoder.features(sound))
