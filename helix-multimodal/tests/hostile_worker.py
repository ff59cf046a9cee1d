"""Loads damaged files in a process of limited memory, one for each number on standard input.

``python hostile_worker.py NUMBER`` loads one case and shows what becomes of it, traceback and all.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gzip
import io
import json
import random
import re
import resource
import struct
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image as Pillow

from helix_kernel import default_kernel
from helix_kernel.errors import ArgumentError, DataError, DependencyError, InputError
from helix_multimodal.detection.files import detect_head
from helix_multimodal.detection.finding import HEAD
from helix_multimodal.detection.walking import Limits, walk

MAX_BYTES = 1 << 26
"""Bytes that a file may take when it is decoded."""
MEMORY = 1 << 30
"""Bytes of address space that loading may take beyond what the process has when it begins."""
_SUFFIXES = {
    "text": ("",),
    "image": (".png", ".jpg", ".webp", ".tiff", ".ppm", ".bmp"),
    "audio": (".wav", ".flac", ".ogg"),
    "video": (".mkv", ".mp4", ".avi", ".webm"),
    "point-cloud": (".ply", ".pcd", ".las", ".obj"),
}
_PICTURES = (
    ("PNG", "P", {}),
    ("PNG", "1", {}),
    ("PNG", "I;16", {}),
    ("JPEG", "L", {}),
    ("JPEG", "RGB", {"progressive": True}),
    ("JPEG", "CMYK", {}),
    ("GIF", "P", {"save_all": True}),
    ("WEBP", "RGB", {"quality": 50}),
    ("WEBP", "RGBA", {"save_all": True}),
    ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    ("TIFF", "1", {"compression": "group4"}),
    ("TIFF", "RGB", {"save_all": True}),
    ("JPEG2000", "RGB", {}),
    ("AVIF", "RGB", {}),
    ("BMP", "P", {}),
    ("PPM", "1", {}),
    ("SGI", "RGB", {}),
    ("XBM", "1", {}),
)
_SOUNDS = (
    ("WAV", "PCM_24"),
    ("WAV", "DOUBLE"),
    ("WAV", "IMA_ADPCM"),
    ("AIFF", "PCM_16"),
    ("AU", "ULAW"),
    ("FLAC", "PCM_24"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
    ("CAF", "ALAC_16"),
    ("W64", "PCM_16"),
)
_SIZES = (
    0,
    1,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x10000000,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    (1 << 62),
    (1 << 64) - 1,
)


def corpus() -> list[tuple[str, str, bytes]]:
    """Return whole files: the modality, a name, the bytes."""
    files = [(kind, f"{kind}{suffix}", data) for kind in _SUFFIXES for suffix, data in _saved(kind)]
    files += [("image", f"{kind}-{mode}", _picture(kind, mode, options)) for kind, mode, options in _PICTURES]
    files += [("audio", f"{kind}-{subtype}", _sound(kind, subtype)) for kind, subtype in _SOUNDS]
    files += [("archive", name, data) for name, data in _archives().items()]
    return files


def mutated(number: int, files: list[tuple[str, str, bytes]]) -> tuple[str, str, bytes]:
    """Return the damaged file of a number: the same each time."""
    draw = random.Random(number)
    kind, name, data = files[number % len(files)]
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4))):
        if changed:
            draw.choice(_MUTATIONS)(changed, draw, files)
    if changed.startswith(b"\x89PNG") and draw.random() < 0.7:
        _mend_checksums(changed)
    return kind, name, bytes(changed)


def loaded(kind: str, data: bytes, modalities: dict, folder: Path, *, as_path: bool) -> str:
    """Return what becomes of a file: ``sample``, or an error's name, and what a wrong one says."""
    try:
        detect_head(data[: HEAD + 1], modalities=modalities)
        path = folder / "file"
        if as_path or kind == "archive":
            path.write_bytes(data)
        if kind == "archive":
            limits = Limits(max_bytes=MAX_BYTES, max_unpacked=4 * MAX_BYTES, max_files=1000)
            return "sample" if list(walk(path, limits=limits)) else "no member"
        modality = modalities[kind]
        sample = modality.load(path if as_path else io.BytesIO(data))
        with contextlib.suppress(ArgumentError):  # such as numbers that are too large for a tensor
            modality.encode(sample)
    except DataError:
        return "DataError"
    except DependencyError:  # as for a file that says that it is compressed
        return "DependencyError"
    except Exception as error:  # noqa: BLE001 - which is what is looked for
        return f"{type(error).__name__}: {error}"
    return "sample"


def _saved(kind: str) -> list[tuple[str, bytes]]:
    modality, found = _built(kind), []
    with tempfile.TemporaryDirectory() as folder:
        for suffix in _SUFFIXES[kind]:
            for number, sample in enumerate(modality.samples(0)):
                path = Path(folder) / f"{number}{suffix or modality.suffix}"
                with contextlib.suppress(InputError):  # a format need not hold every sample
                    modality.save(sample, path)
                    found.append((suffix, path.read_bytes()))
    return found


def _built(kind: str):
    return default_kernel().build("modality", {"use": f"helix-multimodal:{kind}", "max_bytes": MAX_BYTES})


def _picture(kind: str, mode: str, options: dict) -> bytes:
    draw = np.random.default_rng(1)
    pixels = draw.integers(0, 256, (24, 33, 3), dtype=np.uint8)
    pixels[4:16] = 200
    images = [Pillow.fromarray(shade) for shade in (pixels, 255 - pixels, pixels[:, ::-1])]
    if mode == "I;16":
        images = [Pillow.fromarray(pixels[..., 0].astype(np.uint16) * 257)]
    else:
        images = [image.convert(mode) for image in images]
    more = {"append_images": images[1:]} if options.get("save_all") else {}
    file = io.BytesIO()
    images[0].save(file, format=kind, **options, **more)
    return file.getvalue()


def _sound(kind: str, subtype: str) -> bytes:
    file = io.BytesIO()
    waves = np.sin(np.arange(9000)[:, None] * np.array([0.05, 0.08])) * 0.7
    soundfile.write(file, waves, 48000, format=kind, subtype=subtype)
    return file.getvalue()


def _archives() -> dict[str, bytes]:
    members = {"a.txt": b"words and more words " * 40, "b.bin": random.Random(0).randbytes(900)}
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with tarfile.open(fileobj=tarred, mode="w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return {
        "zip": zipped.getvalue(),
        "tar": tarred.getvalue(),
        "tar.gz": gzip.compress(tarred.getvalue(), mtime=0),
        "gz": gzip.compress(zipped.getvalue(), mtime=0),
    }


def _truncate(data, draw, _files):
    del data[draw.randrange(len(data)) :]


def _flip_bits(data, draw, _files):
    for _ in range(draw.randint(1, 8)):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def _set_bytes(data, draw, _files):
    for _ in range(draw.randint(1, 8)):
        data[draw.randrange(len(data))] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))


def _set_size(data, draw, _files):
    """Write a number that is huge, zero or odd over 1 to 8 bytes, most often near the beginning."""
    size, order = draw.choice((1, 2, 4, 4, 8)), draw.choice(("little", "big"))
    end = len(data) if draw.random() < 0.3 else min(len(data), 256)
    place = draw.randrange(end)
    value = draw.choice(_SIZES) & ((1 << 8 * size) - 1)
    data[place : place + size] = value.to_bytes(size, order)


def _set_number(data, draw, _files):
    """Write another number over digits in a text, such as the header of a PLY or PPM file."""
    found = list(re.finditer(rb"\d+", data[:600]))
    if found:
        at = draw.choice(found)
        numbers = (b"0", b"-1", b"99999999", b"4294967295", b"99999999999999999999", b"1e400", b"nan")
        data[at.start() : at.end()] = draw.choice(numbers)


def _splice(data, draw, files):
    """Put a part of this or another file over, or between, bytes of this one."""
    other = draw.choice((bytes(data), draw.choice(files)[2]))
    begin = draw.randrange(len(other))
    part = other[begin : begin + draw.randint(1, 400)]
    place = draw.randrange(len(data))
    data[place : place + draw.choice((0, len(part)))] = part


def _cut_out(data, draw, _files):
    begin = draw.randrange(len(data))
    del data[begin : begin + draw.randint(1, 60)]


_MUTATIONS = (_truncate, _flip_bits, _set_bytes, _set_size, _set_size, _set_number, _splice, _cut_out)


def _mend_checksums(data: bytearray) -> None:
    """Give each chunk of a PNG file its checksum, so that what is damaged reaches the decoder."""
    place = 8
    while place + 12 <= len(data):
        end = place + 8 + struct.unpack(">I", data[place : place + 4])[0]
        if end + 4 > len(data):
            return
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[place + 4 : end]))
        place = end + 4


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def main() -> None:
    faulthandler.enable()
    files = corpus()
    modalities = {kind: _built(kind) for kind in _SUFFIXES}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if len(sys.argv) > 1:
            _show(*mutated(int(sys.argv[1]), files), modalities)
            return
        for kind, name, data in files:
            if (end := loaded(kind, data, modalities, folder, as_path=True)) != "sample":
                raise AssertionError(f"{name}, which is whole, ends in {end}")
        resource.setrlimit(resource.RLIMIT_AS, (_address_space() + MEMORY,) * 2)
        print(json.dumps({"files": len(files)}), flush=True)
        for line in sys.stdin:
            number = int(line)
            case = mutated(number, files)
            begin = time.process_time()
            end = loaded(case[0], case[2], modalities, folder, as_path=number % 2 == 0)
            seconds = time.process_time() - begin
            peak = _peak()
            print(json.dumps([*case[:2], end, seconds, peak]), flush=True)


def _peak() -> int:
    """Return the most memory that this program held, in KiB; what its parent held before is not its own."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _show(kind: str, name: str, data: bytes, modalities: dict) -> None:
    print(kind, name, len(data), data[:80])
    print(detect_head(data[: HEAD + 1], modalities=modalities))
    print(modalities[kind].load(io.BytesIO(data)))


if __name__ == "__main__":
    main()
