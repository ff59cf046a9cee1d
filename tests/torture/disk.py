"""What may stand on a disk after the power went: every state that POSIX lets a file system leave.

What was synced is there. Of what was not, any part may be: each change of a directory, each sector of
a write, or nothing of it; space that was reserved or skipped reads as zeros. A name is safe only
once its directory was synced, whatever happened to the file. Journaling file systems promise more
(they keep changes of names in order), which is one of the `POLICIES`.
"""

from pathlib import Path
from typing import NamedTuple

SECTOR = 512


class Policy(NamedTuple):
    """How likely a change that was not synced is kept.

    Args:
        names: Changes of directories.
        content: Changes of files, by sector.
        in_order: Names are kept up to a moment and none after it, as a journal does.
    """

    names: float
    content: float
    in_order: bool = False


POLICIES = {
    "nothing unsynced": Policy(0, 0),
    "everything": Policy(1, 1),
    "names without content": Policy(1, 0),
    "content without names": Policy(0, 1),
    "any part": Policy(0.5, 0.5),
    "a journal": Policy(0.5, 0.3, in_order=True),
}

_NAMES = {"create", "mkdir", "link", "rename", "remove"}
_CONTENT = {"write", "reserve", "truncate"}


class Disk:
    """Files and directories as a log of operations makes them; node 0 is the root directory."""

    def __init__(self):
        self.directories = {0: {}}
        self.files = {}

    def apply(self, operation):
        """Carry out one operation; one whose name is not there (since what made it was lost) does nothing."""
        if operation.kind in _NAMES:
            self._change_name(operation)
        elif operation.kind == "write":
            self._write(operation.node, operation.offset, operation.content)
        elif operation.kind == "reserve":
            self._grow(operation.node, operation.offset + operation.content)
        elif operation.kind == "truncate":
            self._grow(operation.node, operation.offset)
            del self.files[operation.node][operation.offset :]

    def write_out(self, directory):
        """Make the files and directories in an empty directory."""
        self._write_out(0, Path(directory))

    def _change_name(self, operation):
        if operation.kind in {"create", "mkdir"}:
            known = self.files if operation.kind == "create" else self.directories
            known.setdefault(operation.node, bytearray() if operation.kind == "create" else {})
        names = self.directories[operation.parent]
        if operation.kind == "rename":
            if names.get(operation.name) == operation.node:
                del names[operation.name]
                self.directories[operation.to[0]][operation.to[1]] = operation.node
        elif operation.kind == "remove":
            names.pop(operation.name, None)
        else:
            names[operation.name] = operation.node

    def _write(self, node, offset, content):
        self._grow(node, offset + len(content))
        self.files[node][offset : offset + len(content)] = content

    def _grow(self, node, size):
        file = self.files.setdefault(node, bytearray())
        file.extend(bytes(max(0, size - len(file))))

    def _write_out(self, node, path):
        path.mkdir(exist_ok=True)
        for name, child in self.directories[node].items():
            if child in self.directories:
                self._write_out(child, path / name)
            else:
                (path / name).write_bytes(self.files.get(child, b""))


def after_power_loss(operations, policy, rng):
    """Return a disk as it may be found when the power went after some operations.

    Args:
        operations: What was asked for until then.
        policy: One of `POLICIES`.
        rng: Chooses what of the unsynced is there.
    """
    disk, safe = Disk(), _synced(operations)
    end = rng.integers(len(operations) + 1) if policy.in_order else None
    for index, operation in enumerate(operations):
        if operation.kind in {"create", "mkdir"}:  # the node exists, whether its name does or not
            known = disk.files if operation.kind == "create" else disk.directories
            known.setdefault(operation.node, bytearray() if operation.kind == "create" else {})
        if safe[index]:
            disk.apply(operation)
        elif operation.kind in _NAMES:
            if index < end if end is not None else rng.random() < policy.names:
                disk.apply(operation)
        elif operation.kind in _CONTENT:
            _apply_partly(disk, operation, policy.content, rng)
    return disk


def _synced(operations):
    """Return for each operation whether a later sync made it safe."""
    safe, synced = [], set()
    for operation in reversed(operations):
        if operation.kind == "sync":
            synced.add(operation.node)
        parents = {operation.parent} | ({operation.to[0]} if operation.kind == "rename" else set())
        safe.append(operation.node in synced if operation.kind in _CONTENT else parents <= synced)
    return safe[::-1]


def _apply_partly(disk, operation, likelihood, rng):
    if operation.kind != "write":
        if rng.random() < likelihood:
            disk.apply(operation)
        return
    for start in range(0, len(operation.content), SECTOR):
        if rng.random() < likelihood:
            sector = operation.content[start : start + SECTOR]
            disk.apply(operation._replace(offset=operation.offset + start, content=sector))
