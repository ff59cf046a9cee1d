"""Films: times, sound, sizes and rates, against what FFmpeg itself reads and writes, and on real files."""

from __future__ import annotations

import gzip
import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from helix_kernel.errors import ArgumentError, DataError, InputError
from helix_kernel.modality import Sample
from helix_multimodal.modalities.video import Video

_REAL = Path("/usr/share/doc/opencv-doc/examples/data")
_MP4 = Path("/usr/share/doc/opencv-doc/opencv4/html/box.mp4.gz")


def _noise(n_frames: int, height: int = 12, width: int = 14, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (n_frames, height, width, 3), dtype=np.uint8)


def _saved(sample: Sample, folder: Path, name: str = "film.mkv") -> Path:
    Video().save(sample, folder / name)
    return folder / name


def _smooth(n_frames: int, height: int = 32, width: int = 48) -> Any:
    """Frames that lossy codecs keep well: ramps that move."""
    time, row, column = np.mgrid[:n_frames, :height, :width]
    planes = [column * 4 + time * 3, row * 5 + time, 255 - column * 3 - row]
    return np.stack(planes, -1).clip(0, 255).astype(np.uint8)


def _encoded(
    frames: Any, form: str, codec: str, pixels: str, rate: int = 25, gop: int = 12, **stream_options: str
) -> bytes:
    """Return a film that FFmpeg wrote, with none of our code."""
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        stream: Any = container.add_stream(codec, rate=rate, options=stream_options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        stream.codec_context.gop_size = gop
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize(
    ("times", "rate"),
    [
        ([0.0, 0.04, 0.08], 25.0),
        ([number * 1001 / 30000 for number in range(7)], 30000 / 1001),
        ([number / 60 for number in range(30)], 60.0),
        ([0.0, 1 / 3, 0.5, np.pi], None),
        ([3600.1234567, 3601.0, 3601.5], 24.0),
        ([2.0], None),
    ],
)
def test_times_and_rates_are_kept_exactly(times: list[float], rate: float | None, tmp_path: Path) -> None:
    sample = Sample(arrays={"frames": _noise(len(times)), "timestamps": np.array(times)}, rate=rate)
    back = Video().load(_saved(sample, tmp_path))
    assert sample.differences(back) == []


def test_ffmpeg_reads_what_is_saved_frame_by_frame(tmp_path: Path) -> None:
    frames, times = _noise(5, 17, 33), np.array([0, 0.04, 0.1, 0.5, 0.517])
    path = _saved(Sample(arrays={"frames": frames, "timestamps": times}), tmp_path)
    with av.open(str(path)) as container:
        found = list(container.decode(video=0))
    assert [frame.time for frame in found] == times.tolist()
    assert np.array_equal([frame.to_ndarray(format="rgb24") for frame in found], frames)


@pytest.mark.parametrize(
    ("form", "codec", "pixels"),
    [
        ("mp4", "libx264", "yuv420p"),
        ("mov", "mpeg4", "yuv420p"),
        ("avi", "mpeg4", "yuv420p"),
        ("mpegts", "mpeg2video", "yuv420p"),
        ("mpeg", "mpeg1video", "yuv420p"),
        ("webm", "libvpx", "yuv420p"),
        ("ogg", "libvpx", "yuv420p"),
        ("flv", "flv", "yuv420p"),
        ("avi", "huffyuv", "rgb24"),
    ],
)
def test_films_of_other_programs_are_read(form: str, codec: str, pixels: str) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV's FFmpeg has no {codec}")
    frames = _smooth(9)
    data = _encoded(frames, form, codec, pixels)
    assert Video().sniff(data[:4096], None) > 0.5
    sample = Video().load(io.BytesIO(data))
    with av.open(io.BytesIO(data)) as container:
        expected = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert np.array_equal(sample.arrays["frames"], expected)
    assert np.abs(sample.arrays["frames"].astype(int) - frames).mean() < 12
    steps = np.diff(sample.arrays["timestamps"])
    assert np.abs(steps - 0.04).max() < 1.1e-3
    assert sample.arrays["timestamps"][0] < 0.2
    assert abs((sample.rate or 0) - 25) < 0.1 or form == "mpeg"


def test_colours_are_those_of_the_standard_that_a_film_names(tmp_path: Path) -> None:
    """ITU-R BT.709, 3.2-3.4, in the narrow range, by hand."""
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [128, 128, 128], [200, 40, 90]])
    red, green, blue = (colours / 255).T
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    planes = [16 + 219 * luma, 128 + 224 * (blue - luma) / 1.8556, 128 + 224 * (red - luma) / 1.5748]
    picture = av.VideoFrame(16, 16, "yuv444p")
    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 16, 16, "yuv444p"
        stream.codec_context.colorspace, stream.codec_context.color_range = 1, 1
        for number in range(len(colours)):
            for plane, values in zip(picture.planes, planes, strict=True):
                plane.update(bytes([round(values[number])]) * plane.buffer_size)
            picture.pts, picture.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    found = Video().load(path).arrays["frames"][:, 3, 4].astype(int)
    assert np.abs(found - colours).max() <= 3


def test_sound_is_kept_and_begins_with_the_first_frame(tmp_path: Path) -> None:
    waveform = np.random.default_rng(1).uniform(-1, 1, (2, 40_001)).astype(np.float32)
    arrays = {"frames": _noise(4), "timestamps": 1.5 + np.arange(4) / 25, "waveform": waveform}
    sample = Sample(arrays=arrays, rate=25.0, metadata={"sound_rate": 16_000})
    path = _saved(sample, tmp_path)
    back = Video(sound=True).load(path)
    assert sample.differences(back) == []
    assert back.metadata["sound_rate"] == 16_000
    assert "waveform" not in Video().load(path).arrays
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            last = frame
    assert abs(last.time + last.samples / 16_000 - (1.5 + 40_001 / 16_000)) < 2e-3
    shorter = Video(sound=True, max_frames=2).load(path).arrays["waveform"]
    assert np.array_equal(shorter, waveform[:, : round(0.08 * 16_000)])


def _with_sound(blocks: list[tuple[float, Any]]) -> io.BytesIO:
    """Return a film of one frame, at 1 s, with blocks of sound (T,) of 16 kHz at their times."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream: Any = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 16, 16, "bgr0"
        stream.codec_context.time_base = Fraction(1, 1000)
        sound: Any = container.add_stream("pcm_f32le", rate=16_000, layout="mono")
        picture = av.VideoFrame.from_ndarray(_noise(1, 16, 16)[0], format="rgb24").reformat(format="bgr0")
        picture.pts, picture.time_base = 1000, Fraction(1, 1000)
        container.mux(stream.encode(picture))
        for time, waveform in blocks:
            block = av.AudioFrame.from_ndarray(waveform[None], "flt", "mono")
            block.rate, block.pts, block.time_base = 16_000, round(time * 16_000), Fraction(1, 16_000)
            container.mux(sound.encode(block))
        for each in (stream, sound):
            container.mux(each.encode(None))
    return io.BytesIO(file.getvalue())


@pytest.mark.parametrize("offset", [-0.5, 0.25])
def test_sound_that_begins_at_another_time_is_cut_or_silent_before(offset: float) -> None:
    waveform = np.linspace(-1, 1, 16_000, dtype=np.float32)
    halves = [(1 + offset, waveform[:4000]), (1.25 + offset, waveform[4000:])]
    found = Video(sound=True).load(_with_sound(halves)).arrays["waveform"][0]
    n_ahead = round(offset * 16_000)
    expected = waveform[-n_ahead:] if n_ahead < 0 else np.concatenate([np.zeros(n_ahead), waveform])
    assert np.array_equal(found, expected.astype(np.float32))


def test_what_is_missing_in_the_midst_of_sound_is_silent() -> None:
    first, then = (np.random.default_rng(seed).random(4000, np.float32) for seed in (0, 1))
    found = Video(sound=True).load(_with_sound([(1.0, first), (1.75, then)])).arrays["waveform"][0]
    assert np.array_equal(found, np.concatenate([first, np.zeros(8000, np.float32), then]))


def test_h264_in_mp4_is_near(tmp_path: Path) -> None:
    if "libx264" not in av.codecs_available:
        pytest.skip("PyAV's FFmpeg has no libx264")
    waveform = np.sin(np.arange(16_000) / 10).astype(np.float32)[None]
    arrays = {"frames": _smooth(25), "timestamps": np.arange(25) / 25, "waveform": waveform}
    sample = Sample(arrays=arrays, rate=25.0, metadata={"sound_rate": 16_000})
    back = Video(sound=True).load(_saved(sample, tmp_path, "film.mp4"))
    assert back.metadata["codec"] == "h264"
    assert back.rate == 25
    assert np.abs(back.arrays["timestamps"] - arrays["timestamps"]).max() < 1e-3
    assert np.abs(back.arrays["frames"].astype(int) - arrays["frames"]).mean() < 4
    middle = slice(4000, 12_000)
    assert np.abs(back.arrays["waveform"][0, middle] - waveform[0, middle]).mean() < 0.05


def test_the_stream_is_the_whole_and_can_begin_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(_encoded(_smooth(50), "mp4", "mpeg4", "yuv420p", gop=12))
    whole = Video().load(path)
    parts = list(Video().stream(path, n_frames=7))
    assert [len(part.arrays["frames"]) for part in parts] == [7] * 7 + [1]
    assert np.array_equal(np.concatenate([part.arrays["frames"] for part in parts]), whole.arrays["frames"])
    times = whole.arrays["timestamps"]
    for start, stop in ((0.0, 0.2), (0.52, 1.0), (1.9, 9.0), (0.3, 0.3), (5.0, 9.0)):
        found = list(Video().stream(path, start=start, stop=stop))
        chosen = (times >= start) & (times < stop)
        assert sum(len(part.arrays["frames"]) for part in found) == chosen.sum()
        if found:
            joined = np.concatenate([part.arrays["frames"] for part in found])
            assert np.array_equal(joined, whole.arrays["frames"][chosen])


def test_a_stream_takes_no_more_memory_for_a_longer_film(tmp_path: Path) -> None:
    frames = np.zeros((200, 64, 64, 3), np.uint8)
    sample = Sample(arrays={"frames": frames, "timestamps": np.arange(200) / 25}, rate=25.0)
    path = _saved(sample, tmp_path)
    tight = Video(max_bytes=200_000)
    assert sum(len(part.arrays["frames"]) for part in tight.stream(path, n_frames=8)) == 200
    with pytest.raises(DataError, match="max_bytes=200,000"):
        tight.load(path)


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (25.0, [0, 1, 2, 3, 4, 5]),
        (12.5, [0, 2, 4]),
        (50.0, None),
        (5.0, [0]),
        (9.0, [0, 3]),
        (11.0, [0, 2, 5]),
    ],
)
def test_a_rate_picks_and_repeats_the_nearest_frames(
    rate: float, expected: list[int] | None, tmp_path: Path
) -> None:
    frames = _noise(6)
    path = _saved(Sample(arrays={"frames": frames, "timestamps": np.arange(6) / 25}, rate=25.0), tmp_path)
    found = Video(rate=rate).load(path)
    assert found.rate == rate
    assert np.array_equal(found.arrays["timestamps"], np.arange(len(found.arrays["frames"])) / rate)
    if expected is None:
        assert len(found.arrays["frames"]) == 12
        assert np.array_equal(found.arrays["frames"][::2], frames)
    else:
        assert np.array_equal(found.arrays["frames"], frames[expected])


def test_frames_are_brought_to_a_size_and_counted(tmp_path: Path) -> None:
    frames = np.full((5, 20, 30, 3), (10, 100, 200), np.uint8)
    path = _saved(Sample(arrays={"frames": frames, "timestamps": np.arange(5) / 25}, rate=25.0), tmp_path)
    video = Video(size=(7, 9), max_frames=3)
    sample = video.load(path)
    assert sample.arrays["frames"].shape == (3, 7, 9, 3)
    assert np.abs(sample.arrays["frames"].astype(int) - (10, 100, 200)).max() <= 1
    assert video.encode(sample).shape == (3, 3, 7, 9)


def test_frames_that_change_their_size_need_a_size() -> None:
    both = b"".join(_encoded(_smooth(5, 32, width), "mpegts", "mpeg2video", "yuv420p") for width in (48, 64))
    with pytest.raises(DataError, match="64 by 32"):
        Video().load(io.BytesIO(both))
    assert Video(size=(16, 16)).load(io.BytesIO(both)).arrays["frames"].shape[1:] == (16, 16, 3)


def test_frames_are_turned_as_the_file_says(tmp_path: Path) -> None:
    frames = _smooth(3, 16, 24)
    data = bytearray(_encoded(frames, "mp4", "mpeg4", "yuv420p"))
    upright = Video().load(io.BytesIO(bytes(data)))
    place = data.index(b"tkhd") + 4 + 40
    turned = [0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000]  # ISO 14496-12, 8.3.2: a quarter clockwise
    data[place : place + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in turned)
    sample = Video().load(io.BytesIO(bytes(data)))
    assert sample.arrays["frames"].shape == (3, 24, 16, 3)
    assert np.array_equal(sample.arrays["frames"], np.rot90(upright.arrays["frames"], -1, (1, 2)))
    assert sample.metadata["rotation"] in (90, 270)


def test_tensors_of_models_become_films() -> None:
    sample = Video(rate=10.0).decode(
        torch.tensor([-5.0, 0.4, 254.6, 300.0]).reshape(4, 1, 1, 1).expand(4, 3, 2, 2)
    )
    assert sample.arrays["frames"][:, 0, 0, 0].tolist() == [0, 0, 255, 255]
    assert sample.arrays["timestamps"].tolist() == [0, 0.1, 0.2, 0.3]


@pytest.mark.parametrize("form", ["mp4", "avi", "matroska"])
def test_films_cut_short_are_refused(form: str) -> None:
    data = _encoded(_smooth(30), form, "mpeg4", "yuv420p")
    for share in (0.3, 0.6, 0.9):
        with pytest.raises(DataError):
            Video().load(io.BytesIO(data[: int(len(data) * share)]))


def test_sizes_that_are_too_large_are_refused_before_decoding(tmp_path: Path) -> None:
    data = _encoded(np.zeros((2, 240, 320, 3), np.uint8), "matroska", "mpeg4", "yuv420p")
    with pytest.raises(DataError, match="max_bytes=100,000"):
        Video(max_bytes=100_000).load(io.BytesIO(data))


def test_sound_alone_and_playlists_are_no_films(tmp_path: Path) -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream: Any = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        block = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        block.rate = 8000
        container.mux(stream.encode(block))
    playlist = tmp_path / "film.mp4"
    playlist.write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n")
    for source in (io.BytesIO(file.getvalue()), playlist, tmp_path / "none.mkv"):
        with pytest.raises(DataError):
            Video().load(source)


def test_every_change_of_a_frame_is_found(tmp_path: Path) -> None:
    frames = _noise(6, 20, 18)
    path = _saved(Sample(arrays={"frames": frames, "timestamps": np.arange(6) / 25}, rate=25.0), tmp_path)
    data = path.read_bytes()
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    draw = np.random.default_rng(0)
    for packet in packets:
        start = data.index(packet)
        for place in (start, start + len(packet) - 1, *draw.integers(start, start + len(packet), 20)):
            changed = bytearray(data)
            changed[place] ^= 1 << int(draw.integers(8))
            with pytest.raises(DataError, match="damaged"):
                Video().load(io.BytesIO(bytes(changed)))


@pytest.mark.parametrize("options", [{"level": "1"}, {"level": "3", "slicecrc": "0"}, {"level": "3"}])
def test_ffv1_of_other_programs_is_read_with_sums_and_without(options: dict[str, str]) -> None:
    frames = _noise(3, 32, 32)
    data = _encoded(frames, "matroska", "ffv1", "bgr0", **options)
    assert np.array_equal(Video().load(io.BytesIO(data)).arrays["frames"], frames)


def test_damage_is_told_by_the_error_alone(capfd: pytest.CaptureFixture[str]) -> None:
    """FFmpeg's own messages do not get to the terminal."""
    data = bytearray(_encoded(_smooth(20), "avi", "mpeg4", "yuv420p"))
    place = data.index(b"movi") + 12
    data[place : place + 300] = bytes(300)
    with pytest.raises(DataError, match="damaged"):
        Video().load(io.BytesIO(bytes(data)))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arrays", "rate", "metadata", "message"),
    [
        ({"timestamps": np.zeros(2)}, 25.0, {}, "timestamps"),
        ({"timestamps": np.array([0.0, 0.0004])}, 25.0, {}, "millisecond"),
        ({"timestamps": np.array([0.0, -1.0])}, 25.0, {}, "from 0"),
        ({"timestamps": np.array([0.0, np.nan])}, 25.0, {}, "from 0"),
        ({"timestamps": np.zeros(3)}, 25.0, {}, "each of 2 frames"),
        ({"frames": np.zeros((2, 4, 4), np.uint8)}, 25.0, {}, "uint8"),
        ({"frames": np.zeros((0, 4, 4, 3), np.uint8)}, 25.0, {}, "frames"),
        ({}, -1.0, {}, "rate"),
        ({"waveform": np.zeros((1, 5), np.float32)}, 25.0, {}, "sound_rate"),
        ({"waveform": np.zeros((9, 5), np.float32)}, 25.0, {"sound_rate": 8000}, "1 to 8"),
    ],
)
def test_films_that_no_file_holds_are_refused(
    arrays: dict[str, Any], rate: float, metadata: dict[str, int], message: str
) -> None:
    whole = {"frames": _noise(2), "timestamps": np.arange(2) / 25, **arrays}
    with pytest.raises(InputError, match=message):
        Video().save(Sample(arrays=whole, rate=rate, metadata=metadata), io.BytesIO())


@pytest.mark.parametrize(
    "options", [{"size": (0, 4)}, {"rate": 0.0}, {"rate": float("nan")}, {"max_frames": 0}]
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(options))):
        Video(**options)


@pytest.mark.parametrize("name", ["Megamind.avi", "Megamind_bugy.avi", "tree.avi"])
def test_real_films_are_what_ffmpeg_reads(name: str) -> None:
    path = _REAL / name
    if not path.exists():
        pytest.skip("the package opencv-doc is not installed")
    sample = Video(sound=True, max_frames=30).load(path)
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number == 30:
                break
            assert np.array_equal(sample.arrays["frames"][number], frame.to_ndarray(format="rgb24"))
            assert sample.arrays["timestamps"][number] == frame.time


def test_a_real_mp4_is_read() -> None:
    if not _MP4.exists():
        pytest.skip("the package opencv-doc is not installed")
    data = gzip.decompress(_MP4.read_bytes())
    assert Video().sniff(data[:4096], None) > 0.5
    sample = next(iter(Video().stream(io.BytesIO(data), start=1.0, n_frames=3)))
    assert (sample.arrays["timestamps"] >= 1).all()
    assert sample.arrays["frames"].std() > 10
