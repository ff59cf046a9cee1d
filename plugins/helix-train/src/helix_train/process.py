"""Which process runs something, told so that others can find out whether it still does."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import attrs
from attrs.validators import ge, instance_of, optional


@attrs.frozen
class Process:
    """A process, as others know it.

    Args:
        pid: Its number.
        host: The name of its machine.
        since: When it began, in the words of its kernel; None where the kernel does not say.
    """

    pid: int = attrs.field(validator=[instance_of(int), ge(1)])
    host: str = attrs.field(validator=instance_of(str))
    since: str | None = attrs.field(default=None, validator=optional(instance_of(str)))

    @classmethod
    def own(cls) -> Process:
        """Return the process that asks."""
        pid = os.getpid()
        return cls(pid, platform.node(), _since(pid))

    def is_gone(self) -> bool:
        """Whether it has certainly ended: never said of one on another machine."""
        if self.host != platform.node():
            return False
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return True
        except PermissionError:
            pass
        # A number is given to another process in time, at the latest after a reboot.
        return self.since is not None and _since(self.pid) != self.since


def _since(pid: int) -> str | None:
    """Return when a process began, on systems that have ``/proc``; None for one that has ended there."""
    try:
        # The second field is the program's name in brackets, with whatever characters it likes.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    is_zombie = fields[0] == "Z"
    return None if is_zombie else fields[19]
