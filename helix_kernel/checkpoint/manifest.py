"""The list of a checkpoint's files with their digests: written last, read first."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel.checkpoint.durable import write_file
from helix_kernel.checkpoint.layout import to_bytes
from helix_kernel.errors import CheckpointError, IncompatibleCheckpointError

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = "manifest.json"
FORMAT = "helix-checkpoint"
VERSION = 1


@attrs.frozen
class FileDigest:
    """What a file of a checkpoint must be: its size in bytes and the hexadecimal SHA-256 of them."""

    size: int
    sha256: str

    @classmethod
    def of(cls, content: bytes) -> FileDigest:
        """Return the digest of a file's content."""
        return cls(len(content), hashlib.sha256(content).hexdigest())


@attrs.frozen
class Manifest:
    """The files of one checkpoint: path below it → digest."""

    files: dict[str, FileDigest]

    def write(self, directory: Path) -> None:
        """Write the manifest, with a digest of itself."""
        document = {
            "format": FORMAT,
            "version": VERSION,
            "files": {name: [file.size, file.sha256] for name, file in self.files.items()},
        }
        write_file(directory / MANIFEST, to_bytes(_signed(document)))

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """Read and check the manifest of a checkpoint.

        Raises:
            CheckpointError: There is none, or it is damaged.
            IncompatibleCheckpointError: It is of a later version of the format.
        """
        document = _read_document(directory)
        if document["version"] > VERSION:
            raise IncompatibleCheckpointError(
                f"{directory} is of checkpoint format {document['version']}; this helix-kernel reads up to "
                f"{VERSION}: upgrade it with pip install --upgrade helix-kernel"
            )
        return cls({name: FileDigest(*entry) for name, entry in document["files"].items()})


def check_file(directory: Path, name: str, digest: FileDigest, owner: str) -> bytes:
    """Read a whole file of a checkpoint and return it if it is what was written.

    Args:
        directory: The checkpoint.
        name: The file's path below it.
        digest: What it must be.
        owner: What the file is part of, for errors.

    Raises:
        CheckpointError: It is missing, cut short, grown or changed.
    """
    try:
        content = (directory / name).read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{directory} is damaged: {name}, part of {owner}, is missing") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {directory / name}, part of {owner}: {error.strerror}") from error
    check_size(directory, name, digest, owner, len(content))
    if FileDigest.of(content) != digest:
        raise CheckpointError(
            f"{directory} is damaged: {name}, part of {owner}, was changed after it was written "
            "(its SHA-256 differs from the manifest's)"
        )
    return content


def check_size(directory: Path, name: str, digest: FileDigest, owner: str, size: int) -> None:
    """Raise `CheckpointError` where a file is not as long as it was written."""
    if size != digest.size:
        raise CheckpointError(
            f"{directory} is damaged: {name}, part of {owner}, has {size} bytes of {digest.size} "
            f"({'truncated' if size < digest.size else 'grown'})"
        )


def _signed(document: dict[str, Any]) -> dict[str, Any]:
    """Add the digest of the rest; the one rule that no version of the format may change."""
    return {**document, "sha256": hashlib.sha256(to_bytes(document)).hexdigest()}


def _read_document(directory: Path) -> dict[str, Any]:
    if not directory.is_dir():
        kind = "is a file" if directory.exists() else "does not exist"
        raise CheckpointError(f"{directory} {kind}; a checkpoint is a directory with a {MANIFEST}")
    try:
        content = (directory / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise CheckpointError(
            f"{directory} is no checkpoint: it has no {MANIFEST}, which is written last"
        ) from None
    except OSError as error:
        raise CheckpointError(f"cannot read {directory / MANIFEST}: {error.strerror}") from error
    try:
        document: dict[str, Any] = json.loads(content)
        rest = {key: value for key, value in document.items() if key != "sha256"}
        intact = document["format"] == FORMAT and to_bytes(_signed(rest)) == content
    except (ValueError, KeyError, AttributeError, TypeError):
        intact = False
    if not intact:
        raise CheckpointError(
            f"{directory} is damaged: {MANIFEST} is truncated or was changed, or is no manifest"
        )
    return document
