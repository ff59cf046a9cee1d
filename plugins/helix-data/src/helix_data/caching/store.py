"""Values in files of their own: bounded together, checked when read, shared between processes."""

from __future__ import annotations

import io
import logging
import os
import pickle
import struct
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import numpy as np
import torch

from helix_data.loading import packing
from helix_kernel.checkpoint.digests import digest_of

_log = logging.getLogger(__name__)

_MAGIC = b"helix sample 1\n\0"
_DIGEST = slice(16, 48)
_HEAD = struct.Struct("<QQ")
# What is being written by somebody is left alone for so many seconds.
_UNFINISHED_SECONDS = 3600.0
# A process looks at the folder again when it has written this share of what it may hold.
_SHARE_UNSEEN = 1 / 16
_SHARE_KEPT = 3 / 4


@attrs.define
class Counts:
    """What became of the values asked for in this process.

    Args:
        hits: Were there.
        misses: Were not.
        damaged: Were there, but not as they had been written: they count as misses too.
        unwritten: Could not be kept, because of their size or the disk.
    """

    hits: int = 0
    misses: int = 0
    damaged: int = 0
    unwritten: int = 0


class Store:
    """Values by key, in a folder that several processes may use at once.

    A value is written beside its place and renamed into it, so that nobody reads half of one. Its
    checksum is compared when it is read. A process that has written a sixteenth of `max_bytes` looks at the
    folder and removes what was used longest ago down to three quarters: up to four processes together stay
    below `max_bytes`, and each further one can add a sixteenth.

    Args:
        path: The folder; it is made when something is first kept.
        max_bytes: What all values may take together.
    """

    def __init__(self, path: str | Path, *, max_bytes: int) -> None:
        self.path = Path(path)
        self.max_bytes = max_bytes
        self.counts = Counts()
        # A new process knows nothing of the folder yet.
        self._unseen = max_bytes

    def get(self, key: str) -> Any:
        """Return a value, or None where there is none or it is damaged, which is logged.

        Args:
            key: Hexadecimal digits, at least three.
        """
        place = self._place(key)
        try:
            content = bytearray(place.read_bytes())
        except OSError:
            self.counts.misses += 1
            return None
        try:
            value = _decode(content)
        except Exception as error:  # noqa: BLE001 - whatever a damaged file leads to
            self.counts.damaged += 1
            self.counts.misses += 1
            _log.warning("%s is damaged and is made anew: %s", place, error)
            with suppress(OSError):
                place.unlink()
            return None
        self.counts.hits += 1
        with suppress(OSError):
            os.utime(place)
        return value

    def put(self, key: str, value: Any) -> None:
        """Keep a value. Where that fails, it is logged and counted, and nothing else happens."""
        try:
            content = _encode(value)
            _decode(bytearray(content))
            self._write(self._place(key), content)
        except Exception as error:  # noqa: BLE001 - a value of any type, and any trouble with a disk
            self.counts.unwritten += 1
            _log.warning("%s: a sample cannot be kept: %s", self.path, error)
            return
        self._unseen += len(content)
        if self._unseen > self.max_bytes * _SHARE_UNSEEN:
            self._unseen = 0
            self._evict()

    def _place(self, key: str) -> Path:
        return self.path / key[:2] / f"{key[2:]}.sample"

    def _write(self, place: Path, content: bytes) -> None:
        if len(content) > self.max_bytes * _SHARE_KEPT:
            raise ValueError(f"its {len(content):,} bytes are too many for {self.max_bytes:,} in all")
        place.parent.mkdir(parents=True, exist_ok=True)
        unfinished = place.with_suffix(f".{os.getpid()}-{threading.get_ident()}.unfinished")
        try:
            unfinished.write_bytes(content)
            unfinished.replace(place)
        except OSError:
            with suppress(OSError):
                unfinished.unlink()
            raise

    def _evict(self) -> None:
        """Remove what was used longest ago until three quarters are left, and what nobody finishes."""
        files = sorted(_files(self.path), key=lambda file: file.used_at)
        total = sum(file.size for file in files)
        for file in files:
            is_unfinished = file.path.suffix == ".unfinished"
            if is_unfinished and file.used_at > time.time() - _UNFINISHED_SECONDS:
                continue
            if total > self.max_bytes * _SHARE_KEPT or is_unfinished:
                with suppress(OSError):
                    file.path.unlink()
                total -= file.size


class _File(NamedTuple):
    path: Path
    size: int
    used_at: float


def _files(folder: Path) -> list[_File]:
    found = []
    for path in folder.glob("??/*"):
        if path.suffix in {".sample", ".unfinished"}:
            with suppress(OSError):
                status = path.stat()
                found.append(_File(path, status.st_size, status.st_mtime))
    return found


def _encode(value: Any) -> bytes:
    """Return a file: magic, checksum of the rest, lengths, structure, buffers."""
    packed = packing.pack(value)
    sizes = np.array(packed.sizes, dtype="<u8").tobytes()
    head = _HEAD.pack(len(packed.structure), len(packed.buffers))
    spans, end = packing.places(packed.sizes)
    memory = bytearray(end)
    for span, buffer in zip(spans, packed.buffers, strict=True):
        memory[span] = buffer
    rest = b"".join([head, sizes, packed.structure, memory])
    return _MAGIC + digest_of(rest).encode() + rest


def _decode(content: bytearray) -> Any:
    rest = memoryview(content)[_DIGEST.stop :]
    if content[: _DIGEST.start] != _MAGIC or content[_DIGEST] != digest_of(rest).encode():
        raise ValueError("its checksum differs")
    n_structure, n_buffers = _HEAD.unpack_from(rest)
    sizes = np.frombuffer(rest, dtype="<u8", count=n_buffers, offset=_HEAD.size).tolist()
    begin = _HEAD.size + 8 * n_buffers
    structure = rest[begin : begin + n_structure]
    memory = rest[begin + n_structure :]
    buffers = [memory[span] for span in packing.places(sizes)[0]]
    return _Unpickler(io.BytesIO(structure), buffers=buffers).load()


class _Unpickler(pickle.Unpickler):
    """Builds records of arrays and nothing else, since a folder on a disk may be anybody's."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a class or function of a batch.

        Raises:
            pickle.UnpicklingError: It is something else.
        """
        found = super().find_class(module, name)
        if found in _ARRAY_PARTS or isinstance(found, torch.dtype) or _is_record(found):
            return found
        raise pickle.UnpicklingError(f"a sample holds {module}.{name}, which is no record of arrays")


def _is_record(found: Any) -> bool:
    is_named_tuple = isinstance(found, type) and issubclass(found, tuple) and hasattr(found, "_fields")
    return is_named_tuple or attrs.has(found)


def _array_parts() -> frozenset[Any]:
    array, scalar, void = np.zeros(2), np.float64(0), np.zeros(2, dtype="V3")
    parts: set[Any] = {np.dtype, np.ndarray}
    for value in (array, scalar, void):
        parts.add(value.__reduce_ex__(5)[0])
        parts.add(value.__reduce_ex__(2)[0])
    return frozenset(parts | {packing.rebuild_tensor})


_ARRAY_PARTS = _array_parts()
