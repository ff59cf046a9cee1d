"""Sound, against the standard library's wave, SciPy, FFmpeg and libsndfile on the same files."""

import io
import struct
import sysconfig
import tracemalloc
import wave
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import soxr
from scipy.io import wavfile

from helix_kernel.errors import ArgumentError, DataError, InputError
from helix_kernel.modality import Sample
from helix_kernel.testing.modalities import ModalitySuite
from helix_multimodal.modalities.audio import Audio

CPYTHON = Path(sysconfig.get_path("stdlib")) / "test/audiodata"
ASTERISK = Path("/usr/share/asterisk/sounds")
DRAW = np.random.default_rng(0)
NOISE = DRAW.uniform(-0.9, 0.9, (4_001, 2))


class TestAudio(ModalitySuite):
    def make_modality(self):
        return Audio()


class TestAudioOfOneForm(ModalitySuite):
    def make_modality(self):
        return Audio(rate=8_000, channels=2, seconds=0.03)


class TestAudioOf64Bits(ModalitySuite):
    def make_modality(self):
        return Audio(dtype="float64", channels=1)


def file_of(samples=NOISE, rate=11_025, kind="WAV", subtype=None):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def loaded(data, **options):
    return Audio(**options).load(io.BytesIO(data))


def waveform(data, **options):
    return loaded(data, **options).arrays["waveform"]


def said_by_wave(data):
    """Return integers (C, T) as the standard library reads them."""
    with wave.open(io.BytesIO(data)) as file:
        width, n_channels = file.getsampwidth(), file.getnchannels()
        raw = np.frombuffer(file.readframes(file.getnframes()), np.uint8).reshape(-1, n_channels, width)
    wide = np.zeros((*raw.shape[:2], 4), np.uint8)
    wide[..., 4 - width :] = raw ^ 0x80 if width == 1 else raw
    return wide.view("<i4")[..., 0].T >> (32 - 8 * width)


def said_by_ffmpeg(data):
    """Return floating samples (C, T) as FFmpeg decodes them."""
    with av.open(io.BytesIO(data)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
        layout = container.streams.audio[0]
        planar, n_channels = layout.format.is_planar, layout.channels
    joined = np.concatenate(frames, 1)
    joined = joined if planar else joined.reshape(-1, n_channels).T
    if joined.dtype == np.uint8:
        return (joined.astype(np.float64) - 128) / 128
    return joined if joined.dtype.kind == "f" else joined / (float(np.iinfo(joined.dtype).max) + 1)


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
@pytest.mark.parametrize("n_channels", [1, 2, 5])
def test_integers_are_those_of_the_standard_library(bits, n_channels):
    data = file_of(DRAW.uniform(-1, 1, (77, n_channels)), subtype="PCM_U8" if bits == 8 else f"PCM_{bits}")
    sample = loaded(data, dtype="float64")
    assert (sample.arrays["waveform"] * 2 ** (bits - 1) == said_by_wave(data)).all()
    assert sample.rate == 11_025
    assert sample.metadata == {"format": "WAV", "bits": bits, "floating": False}


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_files_that_are_written_are_read_by_the_standard_library_and_scipy(bits):
    most = 2 ** (bits - 1)
    whole = np.array([[-most, most - 1, 0, 1, -1], [5, -5, most - 2, 1 - most, 3]])
    sample = Sample(
        arrays={"waveform": whole / most}, rate=44_100.0, metadata={"bits": bits, "floating": False}
    )
    file = io.BytesIO()
    Audio().save(sample, file)
    assert (said_by_wave(file.getvalue()) == whole).all()
    file.seek(0)
    rate, found = wavfile.read(file)
    shifted = found.T.astype(np.int64) - (128 if bits == 8 else 0)
    assert rate == 44_100
    assert (shifted >> (8 if bits == 24 else 0) == whole).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floating_samples_that_are_written_are_read_by_scipy(dtype):
    values = np.array([[0.1, np.nan, np.inf, -3.0]], dtype)
    file = io.BytesIO()
    Audio().save(Sample(arrays={"waveform": values}, rate=8_000.0), file)
    file.seek(0)
    _, found = wavfile.read(file)
    assert found.dtype == dtype
    assert np.array_equal(found, values[0], equal_nan=True)


FORMATS = [
    ("WAV", "PCM_U8"),
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "PCM_32"),
    ("WAV", "FLOAT"),
    ("WAV", "DOUBLE"),
    ("WAVEX", "PCM_24"),
    ("RF64", "PCM_16"),
    ("FLAC", "PCM_S8"),
    ("FLAC", "PCM_16"),
    ("FLAC", "PCM_24"),
    ("AIFF", "PCM_16"),
    ("AIFF", "PCM_24"),
    ("AIFF", "FLOAT"),
    ("AU", "PCM_16"),
    ("AU", "ULAW"),
    ("AU", "DOUBLE"),
]


@pytest.mark.parametrize(("kind", "subtype"), FORMATS)
def test_ffmpeg_decodes_the_same(kind, subtype):
    data = file_of(kind=kind, subtype=subtype)
    assert Audio().sniff(data[:4096], None) > 0.5
    assert (waveform(data, dtype="float64") == said_by_ffmpeg(data)).all()


@pytest.mark.parametrize(
    ("kind", "subtype", "rate"),
    [("OGG", "VORBIS", 44_100), ("OGG", "OPUS", 48_000), ("MP3", "MPEG_LAYER_III", 44_100)],
)
def test_ffmpeg_decodes_lossy_formats_nearly_the_same(kind, subtype, rate):
    tone = 0.5 * np.sin(np.arange(rate) * 0.05)[:, None].repeat(2, 1)
    data = file_of(tone, rate, kind, subtype)
    assert Audio().sniff(data[:4096], None) > 0.5
    found, said = waveform(data), said_by_ffmpeg(data)
    n = min(found.shape[1], said.shape[1])
    assert abs(found.shape[1] - rate) < 3_000
    assert abs(found[:, 5_000 : n - 5_000] - said[:, 5_000 : n - 5_000]).max() < 2e-4


@pytest.mark.parametrize("suffix", [".flac", ".aiff", ".au", ".wav"])
@pytest.mark.parametrize("bits", [8, 16, 24])
def test_formats_that_lose_nothing_give_all_back(tmp_path, suffix, bits):
    values = np.rint(NOISE.T * 2 ** (bits - 1)) / 2 ** (bits - 1)
    arrays = {"waveform": values.astype(np.float32)}
    sample = Sample(arrays=arrays, rate=22_050.0, metadata={"bits": bits, "floating": False})
    path = tmp_path / f"sound{suffix}"
    Audio().save(sample, path)
    back = Audio().load(path)
    assert not sample.differences(back)
    assert back.metadata["bits"] == bits


@pytest.mark.parametrize(("suffix", "rate"), [(".ogg", 44_100.0), (".opus", 48_000.0), (".mp3", 44_100.0)])
def test_lossy_formats_are_written(tmp_path, suffix, rate):
    tone = (0.5 * np.sin(np.arange(30_000) * 0.05))[None].astype(np.float32)
    path = tmp_path / f"sound{suffix}"
    Audio().save(Sample(arrays={"waveform": tone}, rate=rate), path)
    back = Audio().load(path)
    assert back.rate == rate
    assert abs(back.arrays["waveform"][0, 5_000:25_000] - tone[0, 5_000:25_000]).max() < 0.05


@pytest.mark.parametrize("values", [(0.1, 0.2), (0.5, 1.0), (-1.0078125, 0), (np.nan, 0)])
def test_integers_are_kept_only_where_they_hold_all(tmp_path, values):
    sample = Sample(
        arrays={"waveform": np.array([values], np.float32)},
        rate=8_000.0,
        metadata={"bits": 8, "floating": False},
    )
    Audio().save(sample, tmp_path / "sound.wav")
    assert not sample.differences(Audio().load(tmp_path / "sound.wav"))


def test_32_bits_need_doubles():
    data = file_of(np.array([[1 / 2**31 + 0.5]]), subtype="PCM_32")
    assert waveform(data, dtype="float64")[0, 0] == 1 / 2**31 + 0.5
    assert loaded(data).metadata == {"format": "WAV", "bits": 32, "floating": True}


@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
def test_resampling_is_soxr_s(rate):
    found = waveform(file_of(subtype="DOUBLE"), rate=rate, dtype="float64")
    assert np.array_equal(found.T, soxr.resample(NOISE, 11_025, rate))


def test_resampling_keeps_a_tone():
    tone = np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000)
    found = waveform(file_of(tone, 48_000, subtype="DOUBLE"), rate=16_000, dtype="float64")[0]
    expected = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert abs(found - expected)[200:-200].max() < 1e-4


def test_channels_are_mixed():
    data = file_of(subtype="DOUBLE")
    assert np.allclose(waveform(data, channels=1, dtype="float64")[0], NOISE.mean(1), atol=1e-15)
    twice = waveform(file_of(NOISE[:, 0], subtype="DOUBLE"), channels=2, dtype="float64")
    assert (twice == NOISE[:, 0]).all()
    five = DRAW.uniform(-1, 1, (9, 5))
    assert (waveform(file_of(five, subtype="DOUBLE"), channels=2, dtype="float64") == five[:, :2].T).all()


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
@pytest.mark.parametrize(
    "options", [{}, {"rate": 8_000}, {"rate": 44_100, "channels": 1}, {"seconds": 0.10001}]
)
def test_blocks_of_a_stream_join_to_the_whole(kind, options):
    data = file_of(np.tile(NOISE, (20, 1)), 22_050, kind)
    blocks = list(Audio(**options).stream(io.BytesIO(data), seconds=0.05))
    whole = loaded(data, **options)
    joined = np.concatenate([one.arrays["waveform"] for one in blocks], 1)
    assert np.array_equal(joined, whole.arrays["waveform"])
    lengths = [one.arrays["waveform"].shape[1] for one in blocks]
    assert set(lengths[:-1]) == {round(0.05 * (options.get("rate") or 22_050))}
    assert {one.rate for one in blocks} == {whole.rate}


@pytest.mark.parametrize("rate", [None, 8_000, 44_100])
@pytest.mark.parametrize("seconds", [1e-6, 0.10001, 0.123456, 5.0])
def test_seconds_are_kept_to_the_nearest_sample(rate, seconds):
    audio, data = Audio(rate=rate, seconds=seconds), file_of(NOISE, 22_050)
    blocks = [block.arrays["waveform"] for block in audio.stream(io.BytesIO(data), seconds=0.05)]
    expected = min(round(seconds * (rate or 22_050)), round(len(NOISE) / 22_050 * (rate or 22_050)))
    assert audio.load(io.BytesIO(data)).arrays["waveform"].shape == (2, expected)
    assert sum(block.shape[1] for block in blocks) == expected


def test_a_stream_may_be_longer_than_memory_is_allowed():
    data = file_of(np.zeros((200_000, 2)), 8_000, "FLAC")
    audio = Audio(max_bytes=100_000)
    with pytest.raises(DataError, match="1,600,000 bytes"):
        audio.load(io.BytesIO(data))
    assert (
        sum(one.arrays["waveform"].shape[1] for one in audio.stream(io.BytesIO(data), seconds=1)) == 200_000
    )
    with pytest.raises(DataError, match="max_bytes"):
        next(audio.stream(io.BytesIO(data), seconds=20))


def test_resampling_counts_for_what_is_allowed():
    data = file_of(np.zeros(1_000), 1)
    with pytest.raises(DataError, match="max_bytes"):
        loaded(data, rate=48_000, max_bytes=1_000_000)


@pytest.mark.parametrize(("kind", "subtype"), [*FORMATS, ("FLAC", "PCM_16")])
def test_a_file_cut_short_is_refused(kind, subtype):
    data = file_of(kind=kind, subtype=subtype)
    for length in (0, 3, 20, 44, len(data) // 2, len(data) - 60):
        with pytest.raises(DataError, match=r"cut short|no sound|damaged"):
            loaded(data[:length])


def test_a_length_that_nobody_knew_is_none():
    """As FFmpeg writes it to a pipe."""
    data = bytearray(file_of(subtype="PCM_16"))
    data[4:8] = b"\xff" * 4
    place = data.index(b"data") + 4
    data[place : place + 4] = b"\xff" * 4
    assert np.array_equal(waveform(bytes(data)), waveform(file_of(subtype="PCM_16")))


def test_a_flac_file_of_unknown_length_is_read():
    data = bytearray(file_of(kind="FLAC"))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    assert np.array_equal(waveform(bytes(data)), waveform(file_of(kind="FLAC")))


def m4a(samples, rate):
    """Return an M4A file of AAC, as FFmpeg writes it, whose title is no UTF-8."""
    file = io.BytesIO()
    with av.open(file, "w", format="ipod") as container:
        stream = container.add_stream("aac", rate=rate, layout="stereo")
        container.metadata["title"] = "S\u00e4nger"
        frame = av.AudioFrame.from_ndarray(samples.astype(np.float32), format="fltp", layout="stereo")
        frame.rate, frame.pts = rate, 0
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return file.getvalue().replace("S\u00e4nger".encode(), b"S\xe4\xe4nger")


def test_m4a_is_what_ffmpeg_says():
    tone = 0.5 * np.sin(np.arange(48_000) * 0.05)[None].repeat(2, 0)
    data = m4a(tone, 48_000)
    sample = loaded(data)
    assert Audio().sniff(data[:4096], None) > 0.5
    assert sample.metadata == {"format": "M4A", "bits": 32, "floating": True}
    assert np.array_equal(sample.arrays["waveform"], said_by_ffmpeg(data.replace(b"S\xe4\xe4", b"SSS")))
    assert abs(sample.arrays["waveform"][:, :40_000] - tone[:, :40_000])[:, 3_000:].max() < 0.05


def test_an_mp3_file_cut_short_is_refused_where_it_says_its_length(capfd):
    data = file_of(np.tile(NOISE, (4, 1)), 44_100, "MP3")
    for length in (len(data) // 3, len(data) - 1_000):
        with pytest.raises(DataError, match="cut short"):
            loaded(data[:length])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["MP3", "FLAC", "OGG", "WAV"])
def test_damaged_files_write_nothing_to_the_terminal(kind, capfd):
    data = file_of(np.tile(NOISE, (4, 1)), 44_100, kind)
    for place in range(500, len(data), len(data) // 20):
        damaged = bytearray(data)
        damaged[place : place + 40] = bytes(range(40))
        with suppress(DataError):
            loaded(bytes(damaged))
    assert capfd.readouterr() == ("", "")


def test_an_mp3_file_may_begin_with_tags():
    data = file_of(NOISE, 44_100, "MP3")
    tag = b"ID3\4\0\0\0\0\2\0TIT2\0\0\0\6\0\0\0Bl\xe9ib" + bytes(240)
    assert Audio().sniff(tag + data, None) > 0.5
    assert np.array_equal(waveform(tag + data), waveform(data))


def test_memory_does_not_grow_with_a_stream():
    data = file_of(np.zeros(8_000 * 600), 8_000, "FLAC")
    tracemalloc.start()
    n_samples = sum(
        block.arrays["waveform"].size for block in Audio(rate=16_000).stream(io.BytesIO(data), seconds=1)
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n_samples == 16_000 * 600
    assert peak < 3_000_000 < 4 * n_samples


def test_files_may_have_no_sound_in_them():
    sample = loaded(file_of(np.zeros((0, 2)), subtype="PCM_16"), rate=8_000)
    assert sample.arrays["waveform"].shape == (2, 0)
    assert Audio().encode(sample).shape == (2, 0)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"OggS\0\2" + bytes(22) + b"\x80theora" + bytes(50) + b"\1vorbis", "a.ogg"),
        (b"RIFF\0\0\0\0AVI LIST", "a.wav"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "a.wav"),
        (b"FORM\0\0\0\0ILBM", "a.aiff"),
        (b"\xff\xfb\x90\x00" + bytes(4000), "a.mp3"),
        (b"\xff\xfe" + "ein Text".encode("utf-16-le"), "a.mp3"),
        (b".snd", "a.au"),
    ],
)
def test_other_files_are_no_sound(head, name):
    assert Audio().sniff(head, name) <= 0.5


def test_errors_name_what_is_wrong():
    with pytest.raises(ArgumentError, match="channels is 3"):
        Audio(channels=3)
    with pytest.raises(ArgumentError, match="rate is 0"):
        Audio(rate=0)
    with pytest.raises(ArgumentError, match="seconds is 0"):
        Audio(seconds=0)
    with pytest.raises(ArgumentError, match="dtype is 'int16'"):
        Audio(dtype="int16")
    with pytest.raises(ArgumentError, match="needs 1"):
        Audio(channels=1).encode(Sample(arrays={"waveform": np.zeros((2, 3), np.float32)}))
    with pytest.raises(InputError, match="rate is None"):
        Audio().save(Sample(arrays={"waveform": np.zeros((2, 3), np.float32)}), io.BytesIO())
    with pytest.raises(InputError, match="int16"):
        Audio().save(Sample(arrays={"waveform": np.zeros((2, 3), np.int16)}, rate=1.0), io.BytesIO())


def test_a_format_that_cannot_hold_a_sound_says_so(tmp_path):
    sample = Sample(arrays={"waveform": np.zeros((20, 10), np.float32)}, rate=8_000.0)
    with pytest.raises(InputError, match="FLAC file cannot hold 20 channels"):
        Audio().save(sample, tmp_path / "sound.flac")
    assert not list(tmp_path.iterdir())


def test_a_header_that_lies_costs_no_memory():
    data = bytearray(file_of(kind="FLAC"))
    data[22:26] = struct.pack(">I", 100_000_000)
    with pytest.raises(DataError):
        loaded(bytes(data))


@pytest.mark.skipif(not CPYTHON.exists(), reason="needs the tests of CPython")
@pytest.mark.parametrize("bits", [8, 16, 24, 32])
@pytest.mark.parametrize("suffix", ["wav", "aiff", "au"])
def test_recordings_of_cpython_s_tests_are_those_of_ffmpeg(bits, suffix):
    path = CPYTHON / f"pluck-pcm{bits}.{suffix}"
    sample = Audio(dtype="float64").load(path)
    assert np.array_equal(sample.arrays["waveform"], said_by_ffmpeg(path.read_bytes()))
    assert (sample.rate, sample.metadata["bits"]) == (11_025, bits)


@pytest.mark.skipif(not ASTERISK.exists(), reason="needs the package asterisk-core-sounds-en-wav")
def test_recordings_are_those_of_the_standard_library():
    for path in sorted(ASTERISK.rglob("*.wav"))[::40]:
        sample = Audio().load(path)
        assert (sample.arrays["waveform"] * 32_768 == said_by_wave(path.read_bytes())).all()
        assert sample.rate == 8_000


@pytest.mark.skipif(not ASTERISK.exists(), reason="needs the package asterisk-core-sounds-en-wav")
def test_recordings_come_back_byte_for_byte_from_what_is_written(tmp_path):
    for path in sorted(ASTERISK.rglob("*.wav"))[::80]:
        sample = Audio().load(path)
        Audio().save(sample, tmp_path / "copy.wav")
        assert (said_by_wave((tmp_path / "copy.wav").read_bytes()) == said_by_wave(path.read_bytes())).all()
