"""Containers are told by their first bytes, against what libsndfile and FFmpeg write."""

import io

import av
import numpy as np
import pytest
import soundfile

from helix_multimodal.modalities.containers import container_of

SOUNDS = [
    ("WAV", "PCM_16", "wav"),
    ("WAVEX", "PCM_16", "wav"),
    ("RF64", "PCM_16", "wav"),
    ("FLAC", "PCM_16", "flac"),
    ("AIFF", "PCM_16", "aiff"),
    ("AU", "PCM_16", "au"),
    ("OGG", "VORBIS", "ogg"),
    ("OGG", "OPUS", "ogg"),
    ("MP3", "MPEG_LAYER_III", "mp3"),
    ("CAF", "PCM_16", "caf"),
    ("W64", "PCM_16", "w64"),
    ("NIST", "PCM_16", "nistsphere"),
    ("VOC", "PCM_16", "voc"),
]
FILMS = [
    ("mov", "mpeg4", "mov"),
    ("mp4", "mpeg4", "mov"),
    ("matroska", "mpeg4", "matroska"),
    ("webm", "libvpx-vp9", "matroska"),
    ("avi", "mpeg4", "avi"),
    ("mpegts", "mpeg2video", "mpegts"),
    ("mpeg", "mpeg1video", "mpeg"),
    ("flv", "flv1", "flv"),
    ("asf", "mpeg4", "asf"),
    ("yuv4mpegpipe", "rawvideo", "yuv4mpegpipe"),
    ("mpeg1video", "mpeg1video", "mpegvideo"),
]


@pytest.mark.parametrize(("kind", "subtype", "name"), SOUNDS)
def test_files_of_sound(kind, subtype, name):
    file = io.BytesIO()
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 48_000)
    soundfile.write(file, noise, 48_000, format=kind, subtype=subtype)
    found = container_of(file.getvalue()[:4096])
    assert found[:2] == ("audio", name)
    assert found.likely > 0.5


def film(kind, codec):
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for number in range(20):
            pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels).reformat(format="yuv420p")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize(("kind", "codec", "name"), FILMS)
def test_files_of_films(kind, codec, name):
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no encoder {codec}")
    data = film(kind, codec)
    found = container_of(data[:4096])
    assert found[:2] == ("video", name)
    assert found.likely > 0.5
    with av.open(io.BytesIO(data), format=found.name) as container:
        assert len(list(container.decode(video=0))) == 20


def ogg(*identifications):
    """Return the first pages of an Ogg file (RFC 3533, 6), one for each stream."""
    pages = b""
    for number, said in enumerate(identifications):
        pages += b"OggS\0\2" + bytes(8) + bytes([number]) + bytes(11) + bytes([1, len(said)]) + said
    return pages


VORBIS, OPUS, THEORA = b"\x01vorbis" + bytes(23), b"OpusHead" + bytes(11), b"\x80theora" + bytes(35)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (ogg(VORBIS), "audio"),
        (ogg(OPUS), "audio"),
        (ogg(b"\x7fFLAC" + bytes(40)), "audio"),
        (ogg(b"Speex   " + bytes(72)), "audio"),
        (ogg(THEORA), "video"),
        (ogg(THEORA, VORBIS), "video"),
        (ogg(VORBIS, THEORA), "video"),
        (b"\0\0\0\x1cftypM4A ", "audio"),
        (b"\0\0\0\x1cftypisom", "video"),
        (b"\0\0\0\x1cftypqt  ", "video"),
    ],
)
def test_sound_and_films_of_one_container_are_told_apart(head, kind):
    assert container_of(head).kind == kind


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"RIFF",
        b"RIFF\0\0\0\0WEBPVP8 ",
        b"\0\0\0\x1cftypavif",
        b"\0\0\0\x1cftypheic",
        b"GIF89a",
        b"\xff\xfb\x90\x00",
        b"\xff\xfb\x90\x00" + bytes(1000),
        b"\xff\xfe" + "ein Text in UTF-16".encode("utf-16-le") * 100,
        b"\x47" * 3,
        b"G" * 100,
        bytes(4096),
        b"snd of a text",
        b"wvpk as a word",
    ],
)
def test_other_beginnings_are_of_none(head):
    found = container_of(head)
    assert found is None or found.likely <= 0.5
