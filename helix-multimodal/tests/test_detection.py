"""Files are told by their content, whatever their names say; archives are gone through within limits."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import struct
import tarfile
import time
import wave
import zipfile
from pathlib import Path

import numpy as np
import pytest

from helix_kernel.errors import DataError
from helix_multimodal.detection.files import detect, detect_head
from helix_multimodal.detection.finding import HEAD
from helix_multimodal.detection.languages import language
from helix_multimodal.detection.walking import Limits, walk

OF_CPYTHON = {
    **{f"audiodata/pluck-{kind}.aifc": ("audio", "aifc") for kind in ("alaw", "ulaw")},
    **{f"audiodata/pluck-pcm{bits}.aiff": ("audio", "aiff") for bits in (8, 16, 24, 32)},
    **{f"audiodata/pluck-pcm{bits}.au": ("audio", "au") for bits in (8, 16, 24, 32)},
    "audiodata/pluck-ulaw.au": ("audio", "au"),
    **{f"audiodata/pluck-pcm{bits}.wav": ("audio", "wav") for bits in (8, 16, 24, 32)},
    "imghdrdata/python-raw.jpg": ("image", "jpeg"),
    "imghdrdata/python.bmp": ("image", "bmp"),
    "imghdrdata/python.exr": ("image", "openexr"),
    "imghdrdata/python.gif": ("image", "gif"),
    "imghdrdata/python.jpg": ("image", "jpeg"),
    "imghdrdata/python.pbm": ("image", "pbm"),
    "imghdrdata/python.pgm": ("image", "pgm"),
    "imghdrdata/python.png": ("image", "png"),
    "imghdrdata/python.ppm": ("image", "ppm"),
    "imghdrdata/python.ras": ("image", "sun-raster"),
    "imghdrdata/python.sgi": ("image", "sgi"),
    "imghdrdata/python.tiff": ("image", "tiff"),
    "imghdrdata/python.webp": ("image", "webp"),
    "imghdrdata/python.xbm": ("image", "xbm"),
}
CODE = {
    "python": "import os\n\n\ndef main(path):\n    for name in os.listdir(path):\n        print(name)\n",
    "c": '#include <stdio.h>\n\nint main(void) {\n  printf("%d\\n", 3);\n  return 0;\n}\n',
    "c++": "#include <vector>\nnamespace a {\ntemplate <class T> class B { std::vector<T> all; };\n}\n",
    "javascript": "const fs = require('fs');\nfunction f(a) { return a === undefined; }\n",
    "rust": "use std::fs;\n\npub fn main() {\n    let mut a = Some(3);\n}\n",
    "go": "package main\n\nfunc main() {\n\ta := 3\n\tif err != nil { return }\n}\n",
    "shell": "#!/bin/sh\nset -e\necho $HOME\n",
    "html": "<!-- made by hand -->\n<!DOCTYPE html>\n<html><body><p>Hello</p></body></html>\n",
    "svg": '<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"></svg>\n',
    "xml": '<?xml version="1.0"?>\n<a><b/></a>\n',
    "json": '{"a": [1, 2], "b": {"c": null}}\n',
    "json-lines": '{"a": 1}\n{"a": 2}\n',
    "csv": "name,size\nkelp,3\nwrack,4\n",
    "tsv": "name\tsize\nkelp\t3\n",
    "numbers": "0.5 1.5 2\n3 4 5e-3\n",
    "toml": '[model]\nuse = "mamba"\nd_model = 64\n',
    "ini": "[model]\nuse = mamba\nname = a b\n",
    "yaml": "---\nname: test\non:\n  - push: main\n",
    "markdown": "# Title\n\nSome `code` and **words**.\n\n- one\n- two\n\n```\nx\n```\n",
    "latex": "\\documentclass{article}\n\\begin{document}\nHi\n\\end{document}\n",
    "plain": "It was the best of times, it was the worst of times.\nWe had everything before us.\n",
}
HEADS = {
    "mp4": (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2", "video"),
    "quicktime": (b"\0\0\0\x14ftypqt  \0\0\2\0qt  ", "video"),
    "m4a": (b"\0\0\0\x20ftypM4A \0\0\2\0", "audio"),
    "avif": (b"\0\0\0\x20ftypavif\0\0\0\0", "image"),
    "heif": (b"\0\0\0\x20ftypheic\0\0\0\0", "image"),
    "matroska": (b"\x1a\x45\xdf\xa3\x93\x42\x82\x88matroska", "video"),
    "webm": (b"\x1a\x45\xdf\xa3\x93\x42\x82\x84webm", "video"),
    "avi": (b"RIFF\0\1\0\0AVI LIST", "video"),
    "ogg-vorbis": (b"OggS\0\2" + bytes(22) + b"\x01\x1e\x01vorbis", "audio"),
    "ogg-opus": (b"OggS\0\2" + bytes(22) + b"\x01\x13OpusHead", "audio"),
    "ogg-theora": (b"OggS\0\2" + bytes(22) + b"\x01\x2a\x80theora", "video"),
    "ply": (b"ply\nformat ascii 1.0\n", "point-cloud"),
    "pcd": (b"# .PCD v0.7\nVERSION 0.7\nFIELDS x y z\n", "point-cloud"),
    "las": (b"LASF" + bytes(300), "point-cloud"),
    "obj": (b"# a square\nv 0 0 0\nv 1 0 0\nv 1 1 0\nf 1 2 3\n", "point-cloud"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "other"),
    "elf": (b"\x7fELF\2\1\1" + bytes(20), "other"),
    "mpeg-ts": (b"".join(b"\x47" + bytes([i]) * 187 for i in range(8)), "video"),
}


def of_cpython(name: str) -> Path:
    test = pytest.importorskip("test", reason="needs CPython's own tests, the package test")
    path = Path(next(iter(test.__path__))) / name
    if not path.exists():
        pytest.skip(f"needs CPython's own test data {name}")
    return path


@pytest.mark.parametrize("name", OF_CPYTHON)
def test_cpythons_test_data_are_known_whatever_their_name(name, tmp_path):
    path = of_cpython(name)
    for other in (path.name, "other.txt", "other"):
        renamed = tmp_path / other
        renamed.write_bytes(path.read_bytes())
        found = detect(renamed)
        assert (found.kind, found.format) == OF_CPYTHON[name]
        assert found.score > 0.5
        assert ("wrong" in found.reason) == other.endswith(".txt")


def test_the_table_of_cpythons_data_has_all_29():
    assert len(OF_CPYTHON) == 29


@pytest.mark.parametrize("name", HEADS)
def test_formats_are_told_by_their_first_bytes(name):
    head, kind = HEADS[name]
    found = detect_head(head)
    assert (found.kind, found.format) == (kind, name)


@pytest.mark.parametrize("name", CODE)
def test_languages_are_told_without_a_name(name):
    found = detect_head(CODE[name].encode())
    assert (found.kind, found.format) == ("text", name)


def test_a_name_settles_what_content_leaves_open():
    both = b"/* nothing but a comment */\n#define A 1\n"
    assert language(both, complete=True, name="a.c") == "c"
    assert language(both, complete=True, name="a.hpp") == "c++"


def test_text_of_other_encodings_is_text():
    for encoding in ("utf-8-sig", "utf-16", "latin-1"):
        assert detect_head("déjà vu, said she; naïve words follow".encode(encoding)).kind == "text"


def test_a_wrong_extension_is_said_and_a_right_one_is_not():
    png = b"\x89PNG\r\n\x1a\n" + bytes(30)
    assert "the name says jpeg, which is wrong" in detect_head(png, "a.jpg").reason
    for name in ("a.png", "a.PNG", "a", None, "a.data"):
        assert "wrong" not in detect_head(png, name).reason
    assert "the name says png" in detect_head(b"only text here\n", "a.png").reason


def test_what_is_empty_or_unknown_is_said():
    assert detect_head(b"").kind == "empty"
    noise = np.random.default_rng(0).bytes(4096)
    found = detect_head(noise, "a.png")
    assert (found.kind, found.score) == ("unknown", 0.0)
    assert "the name says png" in found.reason


def test_bare_pcm_is_a_guess_with_a_low_score():
    tone = (np.sin(np.arange(4000) / 20) * 9000).astype("<i2").tobytes()
    found = detect_head(tone)
    assert (found.kind, found.format) == ("audio", "raw-pcm-s16le")
    assert found.score < 0.5


def test_frames_of_mp3_without_a_tag_are_known():
    frame = b"\xff\xfb\x90\x00" + bytes(413)  # MPEG 1, layer 3, 128 kbit/s, 44.1 kHz: 417 bytes
    assert detect_head(frame * 5).format == "mp3"
    assert detect_head(frame + b"\0" * 1000).kind != "audio"


def test_modalities_of_others_are_asked_about_what_is_unknown():
    class Seismic:
        def sniff(self, head, name):
            return 0.9 if head.startswith(b"\xc0QUAKE") else 0.0

    head = b"\xc0QUAKE\0\1\2\3\xff\xfe"
    assert detect_head(head).kind == "unknown"
    assert detect_head(head, modalities={"seismic": Seismic()}).kind == "seismic"


def test_an_open_file_stays_where_it_was():
    file = io.BytesIO(b"xx\x89PNG\r\n\x1a\n" + bytes(20000))
    file.seek(2)
    assert detect(file).format == "png"
    assert file.tell() == 2


@pytest.mark.parametrize(
    "unit",
    [
        b"\n",
        b" ",
        b"a",
        b"1 ",
        b"<p",
        b'{"',
        b"[",
        b"<!-- -->",
        b"a:",
        b'a="',
        b"\n#a",
        b"`",
        b"$a->",
        b"P5 ",
    ],
)
def test_no_text_takes_long_to_be_told(unit):
    head = (b"P5" if unit.startswith(b"P5") else b"") + unit * (HEAD // len(unit))
    begin = time.perf_counter()
    detect_head(head)
    detect_head(b"x" + head + b"x")
    assert time.perf_counter() - begin < 1


def test_folders_are_walked_in_order_and_pipes_not_opened(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.txt").write_text("some words")
    (tmp_path / "a.json").write_text("[1]")
    (tmp_path / "gone").symlink_to(tmp_path / "missing")
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    found = {Path(member.path).relative_to(tmp_path).as_posix(): member.finding for member in walk(tmp_path)}
    assert list(found) == ["a.json", "gone", "pipe", "b/x.txt"]
    assert found["a.json"].format == "json"
    assert found["gone"].kind == "unknown"
    assert "cannot be read" in found["gone"].reason
    assert found["pipe"].kind == "other"


def test_a_path_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(DataError, match="nothing"):
        list(walk(tmp_path / "nothing"))


def sound() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, 8000, 0, "NONE", ""))
        out.writeframes(struct.pack("<4h", 1, 2, 3, 4))
    return file.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def tarred(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return file.getvalue()


def test_archives_in_archives_are_gone_through_in_memory(tmp_path):
    inner = zipped({"c/s.wav": sound(), "note.txt": b"hello there"})
    other = gzip.compress(tarred({"t": b"words"}))
    (tmp_path / "a.zip").write_bytes(zipped({"b.zip": inner, "d.tar.gz": other}))
    found = {member.path.rpartition("/a.zip")[2]: member for member in walk(tmp_path)}
    assert list(found) == [
        *("", "!b.zip", "!b.zip!c/s.wav", "!b.zip!note.txt", "!d.tar.gz"),
        *("!d.tar.gz!t", "!d.tar.gz!link"),
    ]
    assert found["!b.zip!c/s.wav"].finding.format == "wav"
    assert found["!b.zip!c/s.wav"].source.read() == sound()
    assert found["!d.tar.gz!t"].finding.kind == "text"
    assert found["!d.tar.gz!link"].source is None
    assert sorted(tmp_path.iterdir()) == [tmp_path / "a.zip"]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_file_is_one_member(pack, tmp_path):
    path = tmp_path / "words.txt.gz"
    path.write_bytes(pack(b"some words"))
    members = list(walk(path))
    assert [member.path for member in members] == [str(path), f"{path}!words.txt"]
    assert members[1].finding.kind == "text"


def test_names_that_lead_out_of_an_archive_lead_nowhere(tmp_path):
    path = tmp_path / "in" / "a.tar"
    path.parent.mkdir()
    path.write_bytes(tarred({"../../evil.txt": b"words", "/etc/evil": b"words"}))
    assert [member.path.partition("!")[2] for member in walk(path)] == [
        "",
        "../../evil.txt",
        "/etc/evil",
        "link",
    ]
    assert [entry.name for entry in tmp_path.rglob("*")] == ["in", "a.tar"]


def test_a_bomb_is_refused_when_it_is_too_large(tmp_path):
    (tmp_path / "z.zip").write_bytes(zipped({"a": bytes(3000), "b": b"small words", "c": bytes(900)}))
    said = {
        member.path[-1]: member.finding.reason for member in walk(tmp_path, limits=Limits(max_bytes=1000))
    }
    assert "max_bytes=1,000" in said["a"]
    assert "text" in said["b"]
    (tmp_path / "z.zip").write_bytes(zipped({str(i): bytes(900) for i in range(9)}))
    members = list(walk(tmp_path, limits=Limits(max_unpacked=3000)))
    assert "max_unpacked=3,000" in members[-1].finding.reason
    assert len(members) == 5


def test_a_bomb_in_a_stream_is_refused_even_where_it_is_skipped(tmp_path):
    (tmp_path / "t.tar.gz").write_bytes(gzip.compress(tarred({"a": bytes(1 << 20), "b": b"words"})))
    members = list(walk(tmp_path, limits=Limits(max_bytes=1000, max_unpacked=100_000)))
    assert "max_unpacked" in members[-1].finding.reason


def test_depth_and_number_of_files_have_limits(tmp_path):
    data = b"words"
    for _ in range(5):
        data = zipped({"a.zip": data})
    (tmp_path / "a.zip").write_bytes(data)
    members = list(walk(tmp_path, limits=Limits(max_depth=2)))
    assert len(members) == 4
    assert "max_depth=2" in members[-1].finding.reason
    assert "max_files=2" in list(walk(tmp_path, limits=Limits(max_files=2)))[2].finding.reason


@pytest.mark.parametrize("pack", [zipped, tarred, lambda members: gzip.compress(tarred(members))])
def test_a_damaged_archive_ends_in_a_member_that_says_so(pack, tmp_path):
    draw = np.random.default_rng(0)
    whole = pack({"a": draw.bytes(3000), "b.txt": b"words " * 50})
    path = tmp_path / "archive"
    for number in range(60):
        data = bytearray(whole[: int(draw.integers(len(whole)))] if number % 2 else whole)
        for place in draw.integers(0, len(data), 6) if data else ():
            data[place] = draw.integers(256)
        path.write_bytes(data)
        assert list(walk(path))
