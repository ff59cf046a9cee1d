"""The checkpoints of one run: which steps there are, which is good, which may go."""

from __future__ import annotations

import logging
import re
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from helix_kernel.checkpoint.durable import remove_directory, sweep
from helix_kernel.checkpoint.lock import WriterLock
from helix_kernel.checkpoint.manifest import MANIFEST
from helix_kernel.checkpoint.reader import Checkpoint, load
from helix_kernel.checkpoint.retention import Retention
from helix_kernel.checkpoint.staging import Staging
from helix_kernel.checkpoint.writer import Content, write_step
from helix_kernel.errors import ArgumentError, CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_STEP = re.compile(r"step-(\d{8,})")
_log = logging.getLogger(__name__)


class CheckpointManager:
    """Keeps the checkpoints of a run, as ``step-00000100`` and so on in one directory.

    One manager may write at a time, from its first `save` until `close`; any number may read. It is a
    context that closes itself.

    Args:
        directory: Where the steps lie; made by the first `save`.
        keep: Which steps stay: how many of the newest, at least 1, or a `Retention`; None keeps all.
        async_: Let `save` return once the state is copied, and write the copy in the background.
        incremental: Do not write again what the newest step holds bit for bit; see `reuse`.

    Raises:
        ArgumentError: `keep` is below 1.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        keep: int | Retention | None = 3,
        async_: bool = False,
        incremental: bool = False,
    ) -> None:
        self.directory = Path(directory)
        self.keep = keep if isinstance(keep, Retention) else Retention(last=keep)
        self.incremental = incremental
        self._lock = WriterLock(self.directory)
        self._staging = Staging() if async_ else None
        self._writer = ThreadPoolExecutor(1, "checkpoint") if async_ else None
        self._writing: Future[None] | None = None

    def save(
        self, step: int, state: Mapping[str | int, Any], *, attributes: Mapping[str, Any] | None = None
    ) -> Path:
        """Save a step, then remove those that need not stay; see `save` for arguments and errors.

        A step of that number that is damaged is replaced; a good one is an error. Older steps go
        only when the new one is on the disk, and the new one always stays. In the background a step
        waits for the one before it, and raises that one's error.

        Raises:
            CheckpointError: Also where another manager writes to the directory.
        """
        path = self.path(step)
        self.wait()
        self._lock.acquire()
        sweep(self.directory)
        if path.exists():
            if _damage(path) is None:
                raise CheckpointError(f"{path} exists and is good; a checkpoint is never written over")
            remove_directory(path)
        content = Content.of(state, attributes)
        if self._writer and self._staging:
            self._writing = self._writer.submit(self._write, step, self._staging.copy(content))
        else:
            self._write(step, content)
        return path

    def poll(self) -> None:
        """Raise the error of a step that could not be written in the background, if there is one."""
        if self._writing and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Return when the step in the background is on the disk, or raise its error."""
        writing, self._writing = self._writing, None
        if writing:
            writing.result()

    def close(self) -> None:
        """Wait for what is being written, and let others write to the directory."""
        try:
            self.wait()
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def path(self, step: int) -> Path:
        """Return the directory of a step, whether it exists or not."""
        if step < 0:
            raise ArgumentError(f"step is {step}; allowed is at least 0")
        return self.directory / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """Return the steps that are on disk, ascending; none where the directory is missing."""
        if not self.directory.is_dir():
            return []
        matches = (_STEP.fullmatch(entry.name) for entry in self.directory.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def latest(self) -> int | None:
        """Return the newest step that is complete and verifies; None where there is none.

        What is passed over is logged as a warning.
        """
        for step in reversed(self.steps()):
            damage = _damage(self.path(step))
            if damage is None:
                return step
            if self.path(step).exists():  # else it was removed meanwhile, by retention
                _log.warning("passed over step %d: %s", step, damage)
        return None

    def removable(self) -> list[int]:
        """Return the steps that need not stay, ascending; the newest good one is never among them.

        Raises:
            CheckpointError: No step is good.
        """
        latest = self.latest()
        if latest is None:
            raise CheckpointError(f"{self.directory} has no good step, so none of its steps may go")
        return self._removable(latest)

    def prune(self) -> list[int]:
        """Remove the steps that need not stay, and return them.

        Raises:
            CheckpointError: No step is good, or another manager writes to the directory.
        """
        self.wait()
        self._lock.acquire()
        sweep(self.directory)
        steps = self.removable()
        for step in steps:
            remove_directory(self.path(step))
        return steps

    def load(
        self,
        step: int | None = None,
        *,
        only: str | Iterable[str] | None = None,
        mmap: bool = False,
        verify: bool = True,
        as_torch: bool = False,
    ) -> dict[str | int, Any]:
        """Return the state of a step, or of the newest good one; see `load` for the arguments.

        Raises:
            CheckpointError: There is no such step, no good step, or the step is damaged.
        """
        self.wait()
        if step is None:
            path = resolve(self.directory)
        elif step in self.steps():
            path = self.path(step)
        else:
            raise CheckpointError(f"{self.directory} has no step {step}; it has {self.steps() or 'none'}")
        return load(path, only=only, mmap=mmap, verify=verify, as_torch=as_torch)

    def _write(self, step: int, content: Content) -> None:
        steps = self.steps() if self.incremental else []
        write_step(self.path(step), content, previous=self.path(steps[-1]) if steps else None)
        for old in self._removable(step):
            remove_directory(self.path(old))

    def _removable(self, good: int) -> list[int]:
        return self.keep.removable(good, {step: self._metrics(step) for step in self.steps()})

    def _metrics(self, step: int) -> Mapping[str, Any]:
        if self.keep.metric is None:
            return {}
        try:
            with Checkpoint.open(self.path(step)) as checkpoint:
                metrics = checkpoint.attributes.get("metrics")
        except CheckpointError as error:
            _log.warning("step %d is not among the best: %s", step, error)
            return {}
        return metrics if isinstance(metrics, dict) else {}


def steps_at(path: str | Path) -> list[Path]:
    """Return the checkpoints that a path means, ascending by step, good or not; nothing is read.

    Args:
        path: A checkpoint; or a run's directory, with steps in it or in its ``checkpoints``.

    Raises:
        CheckpointError: Nothing is there.
    """
    given = Path(path)
    if (given / MANIFEST).exists() or _STEP.fullmatch(given.name):
        return [given]
    for manager in (CheckpointManager(given / "checkpoints"), CheckpointManager(given)):
        if steps := manager.steps():
            return [manager.path(step) for step in steps]
    kind = "holds no checkpoint" if given.is_dir() else "is a file" if given.exists() else "does not exist"
    raise CheckpointError(f"{given} {kind}; allowed are a checkpoint's directory and a run's directory")


def resolve(path: str | Path) -> Path:
    """Return the checkpoint that a path means, verified.

    Args:
        path: A checkpoint; or a run's directory, which means the newest step that verifies.

    Raises:
        CheckpointError: Nothing is there, or nothing good; names the damaged file and its array.
    """
    steps = steps_at(path)
    if steps == [Path(path)]:
        with Checkpoint.open(path) as checkpoint:
            checkpoint.verify()
        return steps[0]
    manager = CheckpointManager(steps[0].parent)
    latest = manager.latest()
    if latest is None:
        raise CheckpointError(f"{path} has no good checkpoint; the newest: {_damage(steps[-1])}")
    return manager.path(latest)


def _damage(path: Path) -> CheckpointError | None:
    """Return what is wrong with a checkpoint, or None."""
    try:
        with Checkpoint.open(path) as checkpoint:
            checkpoint.verify()
    except CheckpointError as error:
        return error
    return None
