"""A log of everything that was asked of a file system below one directory, in order."""

import os
import stat
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from torture.calls import intercepted

_CONTENT = {"write", "pwrite", "ftruncate", "posix_fallocate"}


class Operation(NamedTuple):
    """One change. Files and directories go by numbers that are never given twice; the root is 0.

    Args:
        kind: create, mkdir, link (give `node` the `name` in `parent`), rename, remove, write, reserve,
            truncate, sync, or said (the program reported `content`).
        node: The file or directory that is written, synced, or gets a name.
        parent: The directory in which a name changes.
        name: The name; of a rename, the old one.
        to: Parent and name after a rename.
        offset: Where a write or a reservation begins; the size for truncate.
        content: Bytes written, or the length reserved, or what was said.
    """

    kind: str
    node: int = -1
    parent: int = -1
    name: str = ""
    to: tuple[int, str] = (-1, "")
    offset: int = 0
    content: Any = b""


class Recording:
    """What happens below a directory while `recording` is entered.

    Args:
        root: An empty directory.
    """

    def __init__(self, root):
        self.root = Path(root)
        self.operations = []
        self._nodes = {Path(root).stat().st_ino: 0}
        self._made = 0
        self._lock = threading.RLock()

    def said(self, what):
        """Note that the program reported something."""
        self.operations.append(Operation("said", content=what))

    @contextmanager
    def recording(self):
        """Record until the block ends."""
        with intercepted(self._call):
            yield self

    def _call(self, name, real, *args, **kwargs):
        with self._lock:
            if name in _CONTENT or name in {"fsync", "fdatasync"}:
                return self._content(name, real, *args)
            return getattr(self, f"_{name}")(real, *args, **kwargs)

    def _content(self, name, real, descriptor, *args):
        result = real(descriptor, *args)
        node = self._nodes.get(os.fstat(descriptor).st_ino)
        if node is None:
            return result
        if name == "ftruncate":
            self._note("truncate", node, offset=args[0])
        elif name == "posix_fallocate":
            self._note("reserve", node, offset=args[0], content=args[1])
        elif name in {"fsync", "fdatasync"}:
            self._note("sync", node)
        else:
            offset = args[1] if name == "pwrite" else os.lseek(descriptor, 0, os.SEEK_CUR) - result
            self._note("write", node, offset=offset, content=bytes(args[0])[:result])
        return result

    def _open(self, real, path, flags, *args, **kwargs):
        place = self._place(path, kwargs.get("dir_fd")) if flags & os.O_CREAT else None
        existed = place is None or os.path.lexists(path)
        descriptor = real(path, flags, *args, **kwargs)
        if not existed and place[0] is not None:
            self._note("create", self._new(os.fstat(descriptor).st_ino), *place)
        elif flags & os.O_TRUNC and (node := self._nodes.get(os.fstat(descriptor).st_ino)) is not None:
            self._note("truncate", node, offset=0)
        return descriptor

    def _mkdir(self, real, path, *args, **kwargs):
        real(path, *args, **kwargs)
        place = self._place(path, kwargs.get("dir_fd"))
        if place[0] is not None:
            self._note("mkdir", self._new(Path(path).stat().st_ino), *place)

    def _link(self, real, source, target):
        real(source, target)
        place = self._place(target)
        if place[0] is not None:
            self._note("link", self._nodes[Path(target).stat().st_ino], *place)

    def _rename(self, real, source, target):
        before, after = self._place(source), self._place(target)
        real(source, target)
        if before[0] is not None:
            self._note("rename", self._nodes[Path(target).stat().st_ino], *before, to=after)

    _replace = _rename

    def _unlink(self, real, path, *, dir_fd=None):
        place = self._place(path, dir_fd)
        found = os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
        real(path, dir_fd=dir_fd)
        if place[0] is not None:
            self._note("remove", -1, *place)
            if found.st_nlink == 1 or stat.S_ISDIR(found.st_mode):
                self._nodes.pop(found.st_ino, None)  # the number may be given to another

    _remove = _rmdir = _unlink

    def _place(self, path, dir_fd=None):
        parent, name = os.path.split(os.fspath(path))
        directory = os.fstat(dir_fd) if dir_fd is not None and not parent else Path(parent).stat()
        return self._nodes.get(directory.st_ino), name

    def _new(self, inode):
        self._made += 1
        self._nodes[inode] = self._made
        return self._made

    def _note(self, kind, *args, **kwargs):
        self.operations.append(Operation(kind, *args, **kwargs))
