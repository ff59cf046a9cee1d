"""Files are read whole, from where they stand, up to a limit."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from helix_kernel.errors import DataError
from helix_multimodal.files import content, reading

if TYPE_CHECKING:
    from pathlib import Path


class _Pipe(io.RawIOBase):
    """Gives bytes that nobody can go back in."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        return self._data.readinto(buffer)


@pytest.mark.parametrize("length", [0, 1, 9, 10])
def test_all_that_is_left_is_read(length: int, tmp_path: Path) -> None:
    data = bytes(range(length))
    path = tmp_path / "file"
    path.write_bytes(data)
    begun = io.BytesIO(b"before" + data)
    begun.seek(6)
    for source in (path, begun, io.BufferedReader(_Pipe(data))):
        with reading(source) as opened:
            assert content(opened, 10) == data


def test_more_than_is_allowed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(11))
    for source in (path, io.BufferedReader(_Pipe(bytes(11)))):
        with reading(source) as opened, pytest.raises(DataError, match="max_bytes=10"):
            content(opened, 10)
