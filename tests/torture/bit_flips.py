"""Bits flipped anywhere in a checkpoint: in its data, its metadata and its directory of what lies where."""

import json
import os
import re
import tempfile
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import ml_dtypes
import numpy as np

from helix_kernel.checkpoint import Checkpoint, choosing, layout, load, save
from helix_kernel.checkpoint.manifest import MANIFEST
from helix_kernel.errors import CheckpointError
from torture.states import LostError

_CHUNK = 3000
"""Arrays over so many bytes are cut here as those over 4 MiB are, so that there is more of everything."""


class Victim:
    """A small checkpoint with arrays of many kinds, and what is known of it without Helix's reader.

    Args:
        path: Where it is saved.
        compressed: Whether every array is compressed, also where it does not shrink.
    """

    def __init__(self, path, *, compressed=False):
        rng = np.random.default_rng(1)
        shared = rng.random(5)
        self.state = {
            "model": {
                "cut": rng.random((70, 31), np.float32),
                "grid": rng.integers(0, 9, (3, 5, 7)),
                "half": rng.random(77).astype(ml_dtypes.bfloat16),
                "tied": shared,
                "tied again": shared,
            },
            "flags": rng.random(9) < 0.5,
            "scalar": np.float64(3.5),
            "empty": np.empty((0, 3)),
            "text": ("plain", 3, 2.5, None),
        }
        attributes = {"step": 3, "metrics": {"loss": 0.25}}
        compression = "bitshuffle-lz4" if compressed else None
        with mock.patch.object(layout, "CHUNK_BYTES", _CHUNK), mock.patch.object(choosing, "WORTHWHILE", 99):
            layout._layout.cache_clear()
            save(path, self.state, attributes=attributes, compression=compression)
        layout._layout.cache_clear()
        self.path = Path(path)
        self.pack = self.path / "data-00000.bin"
        self.manifest = self.path / MANIFEST
        references = json.loads(self.manifest.read_bytes())["refs"]
        self._places = sorted(
            (place[1], place[1] + place[2], re.sub(r"/c(/\d+)*$", "", key))
            for key, place in references.items()
            if isinstance(place, list)
        )

    def regions(self):
        """Return file, first and last offset of each kind of bytes."""
        content = self.manifest.read_bytes()
        refs, own = content.index(b'"model/'), content.index(b'"helix":{"format"')
        return {
            "data": (self.pack, 0, self.pack.stat().st_size),
            "metadata": (self.manifest, 0, refs),
            "directory": (self.manifest, refs, own),
            "digests": (self.manifest, own, len(content)),
        }

    def owners(self, offset):
        """Return the arrays that may be named for a byte of the pack: its own, or those beside a gap."""
        inside = {name for low, high, name in self._places if low <= offset < high}
        before = [name for _, high, name in self._places if high <= offset]
        after = [name for low, _, name in self._places if low > offset]
        return inside or {*before[-1:], *after[:1]}


def run_rounds(rounds, seed):
    """Flip one bit, look, and mend it, so many times."""
    rng = np.random.default_rng(seed)
    counts = {}
    with tempfile.TemporaryDirectory() as root:
        victims = [Victim(Path(root, "step")), Victim(Path(root, "compressed"), compressed=True)]
        for index in range(rounds):
            victim = victims[index % 2]
            region = str(rng.choice([*victim.regions()]))
            file, low, high = victim.regions()[region]
            offset, bit = int(rng.integers(low, high)), int(rng.integers(8))
            try:
                check_flip(victim, file, offset, bit)
            except Exception as error:
                raise LostError(
                    f"seed {seed}, round {index}: bit {bit} of byte {offset} of {file.name}: {error!r}"
                ) from error
            counts[region] = counts.get(region, 0) + 1
        for victim in victims:
            check_same(victim.state, load(victim.path))
    return ", ".join(f"{counts[region]} in the {region}" for region in sorted(counts))


def check_flip(victim, file, offset, bit):
    """Raise `LostError` unless verify() finds a flipped bit and names its array, and load() nothing wrong."""
    with _flipped(file, offset, bit):
        try:
            with Checkpoint.open(victim.path) as checkpoint:
                checkpoint.verify()
        except CheckpointError as error:
            _check_message(victim, file, offset, str(error))
        else:
            raise LostError("verify() does not see it")
        try:
            state = load(victim.path)
        except CheckpointError as error:
            _check_message(victim, file, offset, str(error))
        else:
            check_same(victim.state, state)


def check_same(expected, found):
    """Raise `LostError` unless two states are equal to the bit."""
    if isinstance(expected, dict):
        if [*expected] != [*found]:
            raise LostError(f"keys {[*found]}, not {[*expected]}")
        for key, value in expected.items():
            check_same(value, found[key])
    elif isinstance(expected, np.ndarray | np.generic):
        if (expected.dtype, expected.shape) != (found.dtype, found.shape):
            raise LostError(f"{found.dtype} {found.shape}, not {expected.dtype} {expected.shape}")
        if expected.tobytes() != found.tobytes():
            raise LostError("a wrong tensor")
    elif expected != found:
        raise LostError(f"{found!r}, not {expected!r}")


def _check_message(victim, file, offset, message):
    if file == victim.pack:
        if not any(f"array {name!r}" in message for name in victim.owners(offset)):
            raise LostError(f"it names none of {victim.owners(offset)}: {message}")
    elif MANIFEST not in message:
        raise LostError(f"it does not name {MANIFEST}: {message}")


@contextmanager
def _flipped(file, offset, bit):
    _flip(file, offset, bit)
    try:
        yield
    finally:
        _flip(file, offset, bit)


def _flip(file, offset, bit):
    descriptor = os.open(file, os.O_RDWR)
    try:
        (byte,) = os.pread(descriptor, 1, offset)
        os.pwrite(descriptor, bytes([byte ^ 1 << bit]), offset)
    finally:
        os.close(descriptor)
