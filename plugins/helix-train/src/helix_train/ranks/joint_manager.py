"""The checkpoints of a run of several ranks, each of which writes what it holds."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from helix_kernel.checkpoint import CheckpointManager
from helix_kernel.errors import ArgumentError
from helix_train.distributed_checkpoint import save_sharded

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch.distributed import ProcessGroup

    from helix_kernel.checkpoint import Retention
    from helix_kernel.checkpoint.location import Place
    from helix_train.ranks.base import Ranks


class JointManager:
    """Keeps the checkpoints of a run, as `CheckpointManager` does, with every rank calling each method.

    Rank 0 holds the directory's lock, and removes the steps that need not stay.

    Args:
        ranks: Those that save together.
        directory: Where the steps lie, on a file system that all ranks share.
        keep: Which steps stay.
        group: Carries what the ranks tell one another, in the memory of the host.
        async_: Must be false.
        incremental: Must be false.
        compression: See `save_sharded`.

    Raises:
        ArgumentError: `async_` or `incremental` is true.
    """

    def __init__(
        self,
        ranks: Ranks,
        directory: Path,
        *,
        keep: Retention,
        group: ProcessGroup | None = None,
        async_: bool = False,
        incremental: bool = False,
        compression: str | None = None,
    ) -> None:
        for name, value in (("async", async_), ("incremental", incremental)):
            if value:
                raise ArgumentError(
                    f"trainer.checkpoint_{name} is true, which is for one process; {ranks.world_size} ranks "
                    "write their checkpoints together: set it to false"
                )
        self._ranks = ranks
        self._group = group
        self._compression = compression
        self._own = CheckpointManager(directory, keep=keep)

    def save(
        self, step: int, state: Mapping[str | int, Any], *, attributes: Mapping[str, Any] | None = None
    ) -> Place:
        """Save a step, then remove those that need not stay; see `CheckpointManager.save`.

        Raises:
            CheckpointError: Also where a rank was lost. The error of one rank is raised on all.
        """
        path = self.path(step)
        with ExitStack() as saving:
            self._ranks.once(lambda: _only_done(saving.enter_context(self._own.saving(step))))
            save_sharded(
                str(path),
                state,
                attributes=attributes,
                compression=self._compression,
                process_group=self._group,
            )
            self._ranks.once(saving.close)
        return path

    def poll(self) -> None:
        """Do nothing: nothing is written in the background."""

    def wait(self) -> None:
        """Do nothing: nothing is written in the background."""

    def close(self) -> None:
        """Let others write to the directory; waits for no rank."""
        self._own.close()

    def path(self, step: int) -> Place:
        """Return the directory of a step, whether it exists or not."""
        return self._own.path(step)

    def steps(self) -> list[int]:
        """Return the steps that are on disk, ascending; asks no other rank."""
        return self._own.steps()

    def latest(self) -> int | None:
        """Return the newest step that verifies, None where there is none; asks no other rank."""
        return self._own.latest()


def _only_done(_: object) -> None:
    """Return nothing, where what was returned is of no use to other ranks."""
