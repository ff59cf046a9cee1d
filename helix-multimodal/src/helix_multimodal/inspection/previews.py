"""Shows what is in a sample with a few characters: a line of text, shades, a curve of loudness, a box."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from helix_kernel.modality import Sample

_SHADES = np.array(list(" ░▒▓█"))
_HEIGHTS = np.array(list("▁▂▃▄▅▆▇█"))
_WIDTH, _ROWS = 32, 8
_MARKS = {
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}


def preview(sample: Sample) -> str:
    """Return some lines that show a sample, by the arrays that it holds; nothing where none is known."""
    for name, show in _OF_ARRAYS.items():
        if name in sample.arrays and sample.arrays[name].size:
            return show(sample)
    return ""


def printable(text: str) -> str:
    """Return text with what is no printable character escaped, so that no file can steer a terminal."""
    known = text.encode("utf-8", "backslashreplace").decode()
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in known
    )


def _text(sample: Sample) -> str:
    data = sample.arrays["bytes"][:4096].tobytes()
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    lines = data.decode(encoding, "replace").splitlines()
    return printable(next((line.strip() for line in lines if line.strip()), ""))[:100]


def _image(sample: Sample) -> str:
    return _shaded(sample.arrays["pixels"])


def _video(sample: Sample) -> str:
    frames, times = sample.arrays["frames"], sample.arrays.get("timestamps")
    said = f"{len(frames)} frames"
    if times is not None and len(times) > 1:
        step = float(np.median(np.diff(times)))
        said += f", {float(times[-1] - times[0]) + step:.2f} s"
    return f"{said}, in the middle:\n{_shaded(frames[len(frames) // 2])}"


def _sound(sample: Sample) -> str:
    loudness = np.abs(sample.arrays["waveform"].astype(np.float64)).max(0)
    peaks = np.array([part.max() for part in np.array_split(loudness, min(_WIDTH, len(loudness)))])
    top = peaks.max()
    levels = peaks / top if top > 0 else peaks
    seconds = f"{len(loudness) / sample.rate:.2f} s, " if sample.rate else ""
    curve = "".join(_HEIGHTS[np.rint(levels * (len(_HEIGHTS) - 1)).astype(int)])
    return f"{curve}  {seconds}peak {top:.3g}"


def _points(sample: Sample) -> str:
    points = sample.arrays["points"]
    least, most = points.min(0), points.max(0)
    sides = (f"{axis} {low:.4g} to {high:.4g}" for axis, low, high in zip("xyz", least, most, strict=False))
    return f"{len(points):,} points: {', '.join(sides)}"


def _shaded(pixels: NDArray[Any]) -> str:
    """Return pixels (H, W, C) as rows of shades, twice as wide as high since characters are narrow."""
    height, width = pixels.shape[:2]
    columns = min(_WIDTH, width)
    rows = max(1, min(_ROWS, height, round(columns * height / width / 2)))
    grey = _luminance(pixels)
    sums = np.add.reduceat(grey, np.arange(rows) * height // rows, axis=0)
    sums = np.add.reduceat(sums, np.arange(columns) * width // columns, axis=1)
    counts = np.outer(_steps(height, rows), _steps(width, columns))
    shades = np.rint(sums / counts * (len(_SHADES) - 1)).astype(int)
    return "\n".join("".join(row) for row in _SHADES[shades.clip(0, len(_SHADES) - 1)])


def _luminance(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return how bright pixels are, 0 to 1: transparent ones are dark."""
    most = np.iinfo(pixels.dtype).max
    n_colours = pixels.shape[2] - (pixels.shape[2] in (2, 4))
    grey: NDArray[Any] = pixels[..., :n_colours].mean(2, dtype=np.float64) / most
    return grey if n_colours == pixels.shape[2] else grey * (pixels[..., -1] / most)


def _steps(length: int, parts: int) -> NDArray[Any]:
    return np.diff(np.append(np.arange(parts) * length // parts, length))


_OF_ARRAYS = {
    "frames": _video,
    "pixels": _image,
    "waveform": _sound,
    "points": _points,
    "bytes": _text,
}
