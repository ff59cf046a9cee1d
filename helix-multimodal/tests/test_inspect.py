"""`helix inspect` says what every file is and what is in it, and goes on after damaged ones."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest

from helix_kernel import default_kernel
from helix_kernel.errors import ArgumentError, DataError
from helix_kernel.modality import Sample
from helix_multimodal.commands import inspect
from helix_multimodal.inspection.previews import preview, printable


def modality(name):
    return default_kernel().build("modality", {"use": f"helix-multimodal:{name}"})


@pytest.fixture
def folder(tmp_path):
    half = np.zeros((16, 32, 3), np.uint8)
    half[:, 16:] = 255
    modality("image").save(Sample(arrays={"pixels": half}), tmp_path / "half.png")
    (tmp_path / "lies.jpg").write_bytes((tmp_path / "half.png").read_bytes())
    (tmp_path / "cut.png").write_bytes((tmp_path / "half.png").read_bytes()[:60])
    (tmp_path / "note.txt").write_text("\n  The first line\nThe second\n")
    (tmp_path / "shape.obj").write_text("v 0 0 0\nv 1 0 0\nv 1 2 -3\n")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("in/b.py", "import os\nprint(os.sep)\n")
    (tmp_path / "all.zip").write_bytes(file.getvalue())
    return tmp_path


def records(capsys, *arguments, **options):
    inspect(*map(str, arguments), json=True, **options)
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_every_file_is_told_decoded_and_counted(folder, capsys):
    *files, counts = records(capsys, folder)
    found = {one["path"].removeprefix(f"{folder}/"): one for one in files}
    assert {name: (one["kind"], one["format"]) for name, one in found.items()} == {
        "all.zip": ("archive", "zip"),
        "all.zip!in/b.py": ("text", "python"),
        "cut.png": ("image", "png"),
        "half.png": ("image", "png"),
        "lies.jpg": ("image", "png"),
        "note.txt": ("text", "plain"),
        "shape.obj": ("point-cloud", "obj"),
    }
    assert found["half.png"]["arrays"] == {"pixels": "(16, 32, 3) uint8"}
    assert found["all.zip!in/b.py"]["preview"] == "import os"
    assert found["note.txt"]["preview"] == "The first line"
    assert found["shape.obj"]["preview"] == "3 points: x 0 to 1, y 0 to 2, z -3 to 0"
    assert "wrong" in found["lies.jpg"]["reason"]
    assert "cut.png" in found["cut.png"]["error"]
    assert counts == {
        "files": 7,
        "kinds": {"archive": 1, "image": 3, "point-cloud": 1, "text": 2},
        "not_decoded": 1,
    }


def test_people_get_lines_with_shades_and_one_line_for_each_error(folder, capsys):
    inspect(str(folder))
    lines = capsys.readouterr().out.splitlines()
    at = lines.index(f"{folder}/half.png")
    assert lines[at + 1].strip().startswith("image png (0.97); ")
    assert lines[at + 2] == "    " + " " * 16 + "█" * 16
    assert sum("error: " in line for line in lines) == 1
    assert any(line.strip().endswith("the name says jpeg, which is wrong") for line in lines)
    assert lines[-1] == "7 files: 1 archive, 3 image, 1 point-cloud, 2 text; 1 could not be decoded"


def test_previews_and_numbers_of_files_can_be_limited(folder, capsys):
    *files, counts = records(capsys, folder, limit=4, preview=False)
    assert counts["files"] == len(files) == 4
    assert all(one["preview"] == "" for one in files)


def test_a_file_alone_will_do_and_none_is_an_error(folder, capsys):
    assert records(capsys, folder / "note.txt")[-1]["files"] == 1
    with pytest.raises(DataError, match="nowhere"):
        inspect(str(folder / "nowhere"))
    with pytest.raises(ArgumentError, match="limit is 0"):
        inspect(str(folder), limit=0)


def test_a_file_that_takes_too_much_is_said_to(folder, capsys):
    *files, _ = records(capsys, folder / "half.png", max_bytes=500)
    assert "max_bytes=500" in files[0]["error"]


def test_a_modality_that_breaks_does_not_end_the_list(folder, capsys, monkeypatch):
    def broken(self, source):
        raise ZeroDivisionError("of\nmine")

    monkeypatch.setattr(type(modality("image")), "load", broken)
    *files, counts = records(capsys, folder)
    assert counts["not_decoded"] == 3
    assert "ZeroDivisionError: of mine" in {one["error"] for one in files}


def test_names_cannot_steer_a_terminal(tmp_path, capsys):
    (tmp_path / "a\x1b[2J\n.txt").write_text("b\x1b[31mred")
    inspect(str(tmp_path))
    assert "\x1b" not in capsys.readouterr().out
    assert printable("a\x1b\udcffé") == "a\\x1b\\udcffé"


def test_sound_is_a_curve_of_its_loudness():
    waveform = np.linspace(0, 0.5, 3200, dtype=np.float32)[None]
    curve, said = preview(Sample(arrays={"waveform": waveform}, rate=1600.0)).split("  ")
    assert said == "2.00 s, peak 0.5"
    assert list(curve) == sorted(curve)
    assert (len(curve), curve[0], curve[-1]) == (32, "▁", "█")
    silent = Sample(arrays={"waveform": np.zeros((2, 5), np.float32)}, rate=1600.0)
    assert preview(silent) == "▁▁▁▁▁  0.00 s, peak 0"


def test_films_say_how_long_they_are():
    frames = np.full((4, 2, 4, 3), 255, np.uint8)
    film = Sample(arrays={"frames": frames, "timestamps": np.arange(4) / 2})
    assert preview(film) == "4 frames, 2.00 s, in the middle:\n████"


def test_of_a_long_film_the_first_frames_are_decoded(tmp_path, capsys):
    frames = np.zeros((103, 16, 16, 3), np.uint8)
    film = Sample(arrays={"frames": frames, "timestamps": np.arange(103) / 25}, rate=25.0)
    modality("video").save(film, tmp_path / "film.mkv")
    *files, _ = records(capsys, tmp_path)
    assert files[0]["preview"].startswith("the first 100 frames, 4.00 s")


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 500, 2), (500, 1, 4), (7, 3, 3), (40, 33, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pictures_of_all_shapes_have_shades(shape, dtype):
    pixels = np.full(shape, np.iinfo(dtype).max, dtype)
    rows = preview(Sample(arrays={"pixels": pixels})).split("\n")
    assert {letter for row in rows for letter in row} == {"█"}
    assert len(rows) <= 8
    assert len(rows[0]) <= 32


def test_what_no_preview_is_known_of_has_none():
    assert preview(Sample(arrays={"masses": np.ones(3)})) == ""
    assert preview(Sample(arrays={"bytes": np.zeros(0, np.uint8)})) == ""
