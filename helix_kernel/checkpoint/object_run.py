"""The steps of a run in an object store: which there are, and removing them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import attrs
import obstore

from helix_kernel.checkpoint.manifest import MANIFEST
from helix_kernel.checkpoint.object_errors import named_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helix_kernel.checkpoint.object_store import ObjectPrefix

DEAD_AFTER = timedelta(days=1)
"""Packs without a manifest may be a living writer's for so long.

An object store has no locks that go with their process. A pack is seen once it is whole, and then its
manifest follows within seconds, or, where several ranks write, when the slowest is done: a day is enough.
"""

_OBJECT = re.compile(r"(step-\d{8,})/([^/]+)")


class ObjectRun:
    """The steps below a prefix: a `Run`. Of two writers of one step, the second gets an error."""

    def __init__(self, at: ObjectPrefix) -> None:
        self._at = at
        self._listing: dict[str, _Step] = {}
        self._condemned: list[str] = []

    def names(self) -> list[str]:
        """See `Run.names`."""
        return [name for name, step in self._list().items() if step.complete]

    def claim(self) -> list[str]:
        """See `Run.claim`; costs one request. What is to be cleared goes with the next `remove`."""
        self._listing = self._list()
        self._condemned += _leftovers(self._listing, DEAD_AFTER)
        return [name for name, step in self._listing.items() if step.complete]

    def remove(self, names: list[str]) -> None:
        """See `Run.remove`; costs one request.

        The manifests go at once, the packs with the next call or `release`: a reader that has opened a
        step is left the time between two saves to read it.
        """
        self._delete([self._at.key(f"{name}/{MANIFEST}") for name in names] + self._condemned)
        listed = [self._listing[name] for name in names if name in self._listing]
        self._condemned = [key for step in listed for key in step.packs]

    def release(self) -> None:
        """See `Run.release`."""
        self._delete(self._condemned)
        self._condemned = []

    def sweep(self, older_than: timedelta = DEAD_AFTER) -> list[str]:
        """Delete what writers that died have left, and return its keys.

        Args:
            older_than: Age of what is taken for dead; zero only where nobody is writing.

        Raises:
            CheckpointError: The store refuses.
        """
        keys = _leftovers(self._list(), older_than)
        self._delete(keys)
        return keys

    def _list(self) -> dict[str, _Step]:
        """Return the steps by name; one request for each 1000 objects.

        Listing everything below tells which steps are complete; by a delimiter, each would need a
        request of its own for that.
        """
        steps: dict[str, _Step] = {}
        with named_errors(f"list {self._at}"):
            for key, modified in self._objects():
                match = _OBJECT.fullmatch(key.removeprefix(self._at.key("")))
                if match:
                    step = steps.setdefault(match[1], _Step())
                    if match[2] == MANIFEST:
                        step.complete = True
                    else:
                        step.packs[key] = modified
        return dict(sorted(steps.items()))

    def _objects(self) -> Iterator[tuple[str, datetime]]:
        for listed in obstore.list(self._at.store, self._at.prefix or None):
            for found in listed:
                yield found["path"], found["last_modified"]

    def _delete(self, keys: list[str]) -> None:
        if keys:
            with named_errors(f"remove objects of {self._at}"):
                obstore.delete(self._at.store, keys)


@attrs.define
class _Step:
    """Whether there is a manifest, and the packs: key → when it was written."""

    complete: bool = False
    packs: dict[str, datetime] = attrs.Factory(dict)


def _leftovers(steps: dict[str, _Step], older_than: timedelta) -> list[str]:
    now = datetime.now(UTC)
    dead = (step for step in steps.values() if not step.complete)
    return [key for step in dead for key, modified in step.packs.items() if now - modified >= older_than]
