"""A file that was cut short is told from a whole one by what its container says, and a window is a file."""

import io
import os

import av
import numpy as np
import pytest
import soundfile

from helix_kernel.errors import DataError
from helix_multimodal.files import Opened
from helix_multimodal.modalities.containers import container_of
from helix_multimodal.modalities.framing import Window, check_whole, windowed


def sound(kind):
    file = io.BytesIO()
    soundfile.write(file, np.random.default_rng(0).uniform(-0.5, 0.5, (2_001, 1)), 48_000, format=kind)
    return file.getvalue()


def film(kind):
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for number in range(10):
            pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels).reformat(format="yuv420p")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


FILES = {
    **{
        kind: sound(kind)
        for kind in ("WAV", "WAVEX", "RF64", "AIFF", "AU", "CAF", "W64", "NIST", "VOC", "MP3")
    },
    **{kind: film(kind) for kind in ("mov", "mp4", "matroska", "avi")},
}


def check(data):
    check_whole(Window(io.BytesIO(data)), container_of(data[:4096]).name, "the file")


@pytest.mark.parametrize("kind", FILES)
def test_whole_files_are_whole(kind):
    check(FILES[kind])
    check(FILES[kind] + b"what some programs append")


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("share", [0.5, 0.8, 0.97])
def test_files_cut_short_are_told(kind, share):
    whole = FILES[kind]
    if kind == "avi" and share > 0.9:
        pytest.skip("its index comes last, and is not needed")
    with pytest.raises(DataError, match="the file is cut short: it says that it has"):
        check(whole[: int(share * len(whole))])


@pytest.mark.parametrize("kind", FILES)
def test_damaged_lengths_end_in_nothing_else(kind):
    draw = np.random.default_rng(0)
    for _ in range(200):
        data = bytearray(FILES[kind])
        for place in draw.integers(0, min(len(data), 200), 3):
            data[place] = draw.integers(256)
        try:
            check_whole(Window(io.BytesIO(bytes(data))), container_of(FILES[kind][:4096]).name, "the file")
        except DataError:
            continue


def test_a_length_that_nobody_knew_is_none():
    data = bytearray(FILES["CAF"])
    place = data.index(b"data\0\0") + 4
    data[place : place + 8] = b"\xff" * 8
    check(bytes(data))


def test_a_window_is_the_rest_of_a_file():
    file = io.BytesIO(b"before" + bytes(range(100)))
    file.seek(6)
    window = Window(file)
    assert window.length == 100
    assert window.read(3) == bytes([0, 1, 2])
    assert window.tell() == 3
    assert window.seek(-2, os.SEEK_END) == 98
    assert window.read() == bytes([98, 99])
    assert window.seek(-200, os.SEEK_CUR) == 0
    assert window.seek(2**70) == 100
    buffer = bytearray(5)
    window.seek(10)
    assert window.readinto(buffer) == 5
    assert buffer == bytes(range(10, 15))
    window.close()
    assert not file.closed


class Pipe(io.RawIOBase):
    """A file that cannot be sought in."""

    def __init__(self, data):
        super().__init__()
        self._file = io.BytesIO(data)

    def readable(self):
        return True

    def read(self, size=-1):
        return self._file.read(size)


def test_what_cannot_be_sought_in_is_read_as_far_as_is_allowed():
    assert windowed(Opened(Pipe(b"abc"), "the pipe"), 3).read() == b"abc"
    with pytest.raises(DataError, match="the pipe has more bytes than are allowed, max_bytes=2"):
        windowed(Opened(Pipe(b"abc"), "the pipe"), 2)
