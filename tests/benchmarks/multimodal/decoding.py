"""How fast modalities load files, beside the bare libraries that decode them.

Usage: python tests/benchmarks/multimodal/decoding.py [--rounds N] [--seconds S] [--only NAME ...] [--write]

Both sides decode the same files into the same arrays, which is checked. Each round runs one side and then the
other, in turn first, for so many seconds; the ratio is the median of the rounds' ratios. Files are in the
page cache, and all runs on one core.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import av
import numpy as np
import soundfile
import torch
from PIL import Image as Pillow

from helix_kernel.modality import Sample
from helix_multimodal.modalities.audio import Audio
from helix_multimodal.modalities.image import Image
from helix_multimodal.modalities.point_cloud import PointCloud
from helix_multimodal.modalities.video import Video

sys.path.insert(0, str(Path(__file__).parents[1]))

from heading import ROOT, heading

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = ROOT / "docs/benchmarks/multimodal-decoding.md"
COMMAND = "python tests/benchmarks/multimodal/decoding.py --write"
PACKAGES = ("soundfile", "pillow", "av", "numpy", "torch")
PROMPTS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
OPENCV = Path("/usr/share/doc/opencv-doc/examples/data")
RATE, N_SECONDS, N_FRAMES, N_POINTS = 44_100, 60, 100, 500_000
GOAL = 1.1


@attrs.frozen
class Case:
    """Files that both sides decode.

    Args:
        name: What they are.
        files: Where they are.
        ours: Returns a sample's arrays.
        bare: Returns the same arrays by the library alone.
    """

    name: str
    files: list[Path]
    ours: Callable[[Path], dict[str, Any]]
    bare: Callable[[Path], dict[str, Any]]


@attrs.frozen
class Found:
    """What was measured of a case: bytes of its arrays, and seconds of both sides by round, for all files."""

    n_bytes: int
    ours: list[float]
    bare: list[float]


def main() -> None:
    """Measure, and print a table; with --write, make the page of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.3, help="that each side takes in a round")
    parser.add_argument("--only", nargs="+", help="words that names of cases begin with")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks")
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    head = heading("Decoding: speed", COMMAND, PACKAGES)
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(Path(folder)):
            if options.only and not case.name.startswith(tuple(options.only)):
                continue
            lines.append(row(case, measured(case, options.rounds, options.seconds)))
            print(lines[-1], flush=True)
    if options.write:
        PAGE.write_text(page(head, lines), encoding="utf-8")


def cases(folder: Path) -> list[Case]:
    """Write files, and return them with those of packages; what is not installed is left out."""
    found = [*sounds(folder), *pictures(folder), *films(folder), cloud(folder)]
    return [case for case in found if case.files and case.files[0].exists()]


def measured(case: Case, rounds: int, seconds: float) -> Found:
    """Time both sides in turn."""
    sizes = [same(case.ours(path), case.bare(path), path) for path in case.files]
    repeats = max(1, round(seconds / timed(case.bare, case.files, 1)))
    times: dict[str, list[float]] = {"ours": [], "bare": []}
    for number in range(rounds):
        sides = [("ours", case.ours), ("bare", case.bare)]
        for name, side in sides if number % 2 else reversed(sides):
            times[name].append(timed(side, case.files, repeats))
    return Found(sum(sizes), **times)


def timed(side: Callable[[Path], Any], files: list[Path], repeats: int) -> float:
    """Return seconds of decoding all files once."""
    begun = time.perf_counter()
    for _ in range(repeats):
        for path in files:
            side(path)
    return (time.perf_counter() - begun) / repeats


def same(ours: dict[str, Any], bare: dict[str, Any], path: Path) -> int:
    """Return the bytes of the arrays, which have to be equal."""
    assert sorted(ours) == sorted(bare), path
    for name, array in bare.items():
        assert ours[name].dtype == array.dtype, (path, name)
        assert np.array_equal(ours[name], array), (path, name)
    return sum(array.nbytes for array in bare.values())


def sounds(folder: Path) -> list[Case]:
    """Sound of a minute in four formats, and short real prompts."""
    draw = np.random.default_rng(0)
    time_ = np.arange(RATE * N_SECONDS) / RATE
    tones = [np.sin(2 * np.pi * pitch * time_ * (1 + 0.1 * np.sin(time_))) for pitch in (220, 331)]
    waveform = 0.4 * np.stack(tones, 1) + 0.02 * draw.standard_normal((len(time_), 2))
    modality = Audio()
    found = []
    for suffix, kind, subtype in (
        (".wav", "WAV", "PCM_16"),
        (".flac", "FLAC", "PCM_16"),
        (".ogg", "OGG", "VORBIS"),
    ):
        path = folder / f"sound{suffix}"
        with soundfile.SoundFile(path, "w", RATE, 2, subtype, format=kind) as file:
            for start in range(0, len(waveform), 1 << 16):
                file.write(waveform[start : start + (1 << 16)])
        name = f"sound: {kind}, {N_SECONDS} s, stereo"
        found.append(Case(name, [path], lambda p: dict(modality.load(p).arrays), bare_sound))
    prompts = sorted(PROMPTS.glob("*.wav"))[:100]
    found.append(Case("sound: 100 WAV prompts", prompts, lambda p: dict(modality.load(p).arrays), bare_sound))
    return found


def bare_sound(path: Path) -> dict[str, Any]:
    """Decode by soundfile."""
    samples, _ = soundfile.read(path, dtype="float32", always_2d=True)
    return {"waveform": samples.T}


def pictures(folder: Path) -> list[Case]:
    """Smooth pictures with some noise, and real photographs."""
    rows, columns = np.mgrid[:768, :1024]
    noise = np.random.default_rng(0).normal(0, 4, (768, 1024, 3))
    ramps = np.stack([rows / 4, columns / 5, (rows + columns) / 8], -1)
    pixels = (ramps + noise).clip(0, 255).astype(np.uint8)
    modality = Image()
    found = []
    for suffix in (".png", ".jpg", ".webp", ".ppm"):
        path = folder / f"picture{suffix}"
        modality.save(Sample(arrays={"pixels": pixels}), path)
        name = f"picture: {suffix[1:].upper()}, 1024 x 768"
        found.append(Case(name, [path], lambda p: dict(modality.load(p).arrays), bare_picture))
    photographs = [path for path in sorted(OPENCV.glob("*.jpg")) if mode(path) == "RGB"]
    name = f"picture: {len(photographs)} JPEG photographs"
    found.append(Case(name, photographs, lambda p: dict(modality.load(p).arrays), bare_picture))
    return found


def mode(path: Path) -> str:
    """Return what Pillow calls a picture's channels."""
    with Pillow.open(path) as image:
        return image.mode


def bare_picture(path: Path) -> dict[str, Any]:
    """Decode by Pillow, into memory of one's own."""
    with Pillow.open(path) as image:
        return {"pixels": np.array(image)}


def films(folder: Path) -> list[Case]:
    """A film of moving ramps in two codecs, and real ones."""
    when, rows, columns = np.mgrid[:N_FRAMES, :240, :320]
    planes = [columns / 2 + when * 3, rows + when, 255 - columns / 3 - rows / 3]
    frames = np.stack(planes, -1).clip(0, 255).astype(np.uint8)
    sample = Sample(arrays={"frames": frames, "timestamps": np.arange(N_FRAMES) / 25}, rate=25.0)
    modality = Video()
    found = []
    for suffix, name in ((".mp4", "H.264 in MP4"), (".mkv", "FFV1 in Matroska")):
        modality.save(sample, folder / f"film{suffix}")
        found.append(
            Case(
                f"film: {name}, {N_FRAMES} frames of 320 x 240",
                [folder / f"film{suffix}"],
                lambda p: dict(modality.load(p).arrays),
                bare_film,
            )
        )
    real = [OPENCV / "Megamind_bugy.avi"]
    found.append(Case("film: MPEG-4 in AVI, real", real, lambda p: dict(modality.load(p).arrays), bare_film))
    return found


def bare_film(path: Path) -> dict[str, Any]:
    """Decode by PyAV, as its documentation shows it, with the same threads."""
    frames, times = [], []
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            frames.append(frame.to_ndarray(format="rgb24"))
            times.append(frame.time)
    return {"frames": np.stack(frames), "timestamps": np.array(times)}


def cloud(folder: Path) -> Case:
    """Points with colours, in a binary PLY file."""
    draw = np.random.default_rng(0)
    points = draw.normal(size=(N_POINTS, 3)).astype(np.float32)
    colours = draw.integers(0, 256, (N_POINTS, 3), dtype=np.uint8)
    modality = PointCloud()
    modality.save(Sample(arrays={"points": points, "colours": colours}), folder / "cloud.ply")
    return Case(
        f"cloud: binary PLY, {N_POINTS:,} points with colours",
        [folder / "cloud.ply"],
        lambda p: dict(modality.load(p).arrays),
        bare_cloud,
    )


def bare_cloud(path: Path) -> dict[str, Any]:
    """Read x, y, z and red, green, blue by numpy, which knows what the header would say."""
    content = path.read_bytes()
    start = content.index(b"end_header\n") + len(b"end_header\n")
    table = np.frombuffer(content, [("points", "<f4", 3), ("colours", "u1", 3)], N_POINTS, start)
    return {name: np.ascontiguousarray(table[name]) for name in ("points", "colours")}


def row(case: Case, found: Found) -> str:
    """Return a line of the table."""
    ratios = [ours / bare for ours, bare in zip(found.ours, found.bare, strict=True)]
    ratio = statistics.median(ratios)
    medians = [statistics.median(seconds) for seconds in (found.ours, found.bare)]
    speeds = " | ".join(f"{found.n_bytes / seconds / 1e6:,.0f}" for seconds in medians)
    more = (min(found.ours) - min(found.bare)) / len(case.files) * 1e6
    each = f"{more:,.0f}" if len(case.files) > 1 else "-"
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    verdict = "yes" if ratio <= GOAL else "no"
    return f"| {case.name} | {speeds} | {ratio:.2f} | {spread} | {each} | {verdict} |"


def page(head: str, lines: list[str]) -> str:
    """Return the document."""
    text = (
        "Time that loading a file takes, and what the bare library takes that decodes it into the same\n"
        "arrays: soundfile, Pillow, PyAV, and numpy for points. Rates count bytes of the arrays. A ratio\n"
        "is Helix's time over the library's, the median of rounds in which both ran in turn; below 1, Helix\n"
        f"is faster. The goal is at most {GOAL}. What Helix adds is telling what the file is, holding its\n"
        "length and size against its header, and an error that says what is wrong; short files feel it\n"
        "most: what one of many costs more is told by the fastest rounds of both sides.\n"
    )
    table = ["| files | Helix, MB/s | library, MB/s | ratio | its range | more, µs a file | in the goal |"]
    return "\n".join([head, text, *table, "|---|---|---|---|---|---|---|", *lines, ""])


if __name__ == "__main__":
    sys.exit(main())
