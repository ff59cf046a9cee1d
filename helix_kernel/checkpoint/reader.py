"""Reading a checkpoint: whole, in part, or one slice of one array."""

from __future__ import annotations

import json
import operator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from helix_kernel.checkpoint.arrays import to_torch
from helix_kernel.checkpoint.layout import Chunk, Layout
from helix_kernel.checkpoint.manifest import Manifest, check_file, check_size
from helix_kernel.checkpoint.tree import Decoder
from helix_kernel.errors import ArgumentError, CheckpointError, UnknownNameError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable

_ROOT = "zarr.json"


def load(
    path: str | Path, *, only: str | Iterable[str] | None = None, verify: bool = True, as_torch: bool = False
) -> dict[str | int, Any]:
    """Return a checkpoint's state, nested as it was saved.

    Args:
        path: The checkpoint's directory.
        only: Paths such as ``"model"`` or ``["model/norm", "optimizer"]``: of mappings, only what
            lies at or below them. Everything if left out.
        verify: Check each file that is read against its SHA-256. Without it only missing files and
            wrong sizes are found.
        as_torch: Return CPU tensors; else numpy arrays, with bfloat16 and float8 of ml_dtypes.

    Raises:
        CheckpointError: There is no checkpoint, or it is damaged.
        IncompatibleCheckpointError: It is of a later version of the format.
        UnknownNameError: Nothing lies at one of `only`.
    """
    return Checkpoint.open(path).state(only=only, verify=verify, as_torch=as_torch)


@attrs.frozen
class ArrayInfo:
    """What is known of a stored array without reading it.

    Args:
        name: Its path.
        shape: Its shape.
        dtype: The Zarr name of its type, such as ``bfloat16``.
        sha256: Digest of its C-ordered little-endian bytes.
        nbytes: How many those are.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    sha256: str
    nbytes: int


class Checkpoint:
    """An open checkpoint. Make one with `Checkpoint.open`.

    Attributes:
        path: Its directory.
        attributes: What was saved as attributes.
        arrays: Path → what is known of the array; ties appear under the path that is stored.
        ties: Path of a tied array → the path under which it is stored.
    """

    def __init__(self, path: Path, manifest: Manifest, root: dict[str, Any]) -> None:
        self.path = path
        self.attributes: dict[str, Any] = Decoder(str).decode(root["attributes"])
        self.ties: dict[str, str] = root["ties"]
        self._manifest = manifest
        self._tree = root["state"]
        self._layouts = {name: Layout.from_json(entry) for name, entry in root["arrays"].items()}
        self.arrays = {
            name: ArrayInfo(name, layout.shape, entry["dtype"], entry["sha256"], layout.nbytes)
            for (name, entry), layout in zip(root["arrays"].items(), self._layouts.values(), strict=True)
        }

    @classmethod
    def open(cls, path: str | Path) -> Checkpoint:
        """Open a checkpoint; reads and checks its manifest and its root, no array.

        Raises:
            CheckpointError: There is no checkpoint, or one of the two is damaged.
            IncompatibleCheckpointError: It is of a later version of the format.
        """
        directory = Path(path)
        manifest = Manifest.read(directory)
        root = check_file(directory, _ROOT, manifest.files[_ROOT], "the checkpoint's index of arrays")
        return cls(directory, manifest, json.loads(root)["attributes"]["helix"])

    def __getitem__(self, name: str) -> LazyArray:
        """Return the array at a path, or the one that it is tied to; nothing is read yet."""
        stored = self.ties.get(name, name)
        if stored not in self._layouts:
            known = [*self.arrays, *self.ties]
            raise UnknownNameError(f"{self.path} has no array {name!r}.{did_you_mean(name, known)}")
        return LazyArray(self.path, stored, self._layouts[stored], self._manifest)

    def __contains__(self, name: object) -> bool:
        return name in self.arrays or name in self.ties

    def digest(self, name: str) -> str:
        """Return the SHA-256 of an array's C-ordered little-endian bytes, as it was when saved."""
        return self.arrays[self[name].name].sha256

    def verify(self) -> None:
        """Read every file and check it.

        Raises:
            CheckpointError: One is missing, truncated or changed; the message names it and its array.
        """
        for name, digest in self._manifest.files.items():
            check_file(self.path, name, digest, self._owner(name))

    def state(
        self, *, only: str | Iterable[str] | None = None, verify: bool = True, as_torch: bool = False
    ) -> dict[str | int, Any]:
        """Return the state; the arguments are those of `load`."""
        arrays: dict[str, Any] = {}

        def read(name: str) -> Any:
            stored = self.ties.get(name, name)
            if stored not in arrays:  # what was tied is one array again
                array = self[stored].read(verify=verify)
                arrays[stored] = to_torch(array) if as_torch else array
            return arrays[stored]

        wanted = _Selection(only)
        state: dict[str | int, Any] = Decoder(read, wanted).decode(self._tree)
        for path in wanted.unmatched():
            known = sorted(
                {name.split("/")[0] for name in self.arrays} | set(map(str, state)) | set(self.arrays)
            )
            raise UnknownNameError(f"{self.path} holds nothing at {path!r}.{did_you_mean(path, known)}")
        return state

    def _owner(self, file: str) -> str:
        for parent in Path(file).parents:
            if parent.as_posix() in self.arrays:
                return f"array {parent.as_posix()!r}"
        return f"group {Path(file).parent.as_posix()!r}"


class LazyArray:
    """An array of a checkpoint that is read when it is indexed or converted.

    Attributes:
        name: Its path.
        shape: Its shape.
        dtype: Its numpy type.
    """

    def __init__(self, directory: Path, name: str, layout: Layout, manifest: Manifest) -> None:
        self.name = name
        self.shape = layout.shape
        self.dtype = layout.dtype
        self._directory = directory
        self._layout = layout
        self._files = manifest.files

    def read(self, *, verify: bool = True) -> np.ndarray:
        """Return the whole array; see `load` for `verify` and errors."""
        return self._rows(0, self.shape[0] if self.shape else 1, verify=verify).reshape(self.shape)

    def __getitem__(self, index: Any) -> Any:
        """Return ``array[index]``; of the first axis, only the chunks needed are read."""
        first, *rest = index if isinstance(index, tuple) and index else (index,)
        if not self.shape or not isinstance(first, int | np.integer | slice):
            return self.read()[index]
        if isinstance(first, slice):
            rows = range(self.shape[0])[first]
            low, high = (min(rows), max(rows) + 1) if rows else (0, 0)
            local: Any = [row - low for row in rows] if rows.step != 1 else slice(None)
            return self._rows(low, high)[local][(slice(None), *rest)]
        row = range(self.shape[0])[operator.index(first)]
        return self._rows(row, row + 1)[(0, *rest)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:  # noqa: FBT001 - numpy's protocol
        if copy is False:
            raise ArgumentError(f"array {self.name!r} lies on disk; it cannot become numpy's without a copy")
        return self.read().astype(dtype or self.dtype, copy=False)

    def __repr__(self) -> str:
        return f"LazyArray({self.name!r}, shape={self.shape}, dtype={self.dtype.name})"

    def _rows(self, low: int, high: int, *, verify: bool = True) -> np.ndarray:
        """Read rows of the first axis (a 0-d array has one)."""
        shape = (high - low, *self.shape[1:])
        array = np.empty(shape, self.dtype)
        row_bytes = array.nbytes // max(1, high - low)
        target = array.reshape(-1).view(np.uint8).data
        start, stop = low * row_bytes, high * row_bytes
        for chunk in self._layout.chunks():
            begin, end = max(chunk.start, start), min(chunk.stop, stop)
            if begin < end:
                content = self._read_chunk(chunk, verify=verify)
                target[begin - start : end - start] = content[begin - chunk.start : end - chunk.start]
        return array

    def _read_chunk(self, chunk: Chunk, *, verify: bool) -> memoryview:
        file, owner = f"{self.name}/{chunk.key}", f"array {self.name!r}"
        digest = self._files[file]
        if verify:
            return memoryview(check_file(self._directory, file, digest, owner))
        try:
            content = (self._directory / file).read_bytes()
        except OSError as error:
            raise CheckpointError(
                f"cannot read {self._directory / file}, part of {owner}: {error.strerror}"
            ) from error
        check_size(self._directory, file, digest, owner, len(content))
        return memoryview(content)


class _Selection:
    """The paths that `only` asks for; calling it says whether a path lies at or below one."""

    def __init__(self, only: str | Iterable[str] | None) -> None:
        self._paths = None if only is None else [only] if isinstance(only, str) else list(only)
        self._matched: set[str] = set()

    def __call__(self, path: str) -> bool:
        if self._paths is None:
            return True
        matches = [asked for asked in self._paths if f"{path}/".startswith(f"{asked.rstrip('/')}/")]
        self._matched.update(matches)
        return bool(matches)

    def unmatched(self) -> list[str]:
        return [path for path in self._paths or () if path not in self._matched]
