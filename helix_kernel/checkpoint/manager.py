"""The checkpoints of one run: which steps there are, which is good, which may go."""

from __future__ import annotations

import logging
import re
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from helix_kernel.checkpoint.compression import check_compression
from helix_kernel.checkpoint.location import locate
from helix_kernel.checkpoint.reader import Checkpoint, load
from helix_kernel.checkpoint.retention import Retention
from helix_kernel.checkpoint.staging import Staging
from helix_kernel.checkpoint.writer import Content, write_step
from helix_kernel.errors import ArgumentError, CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from helix_kernel.checkpoint.location import Address, Place

_STEP = re.compile(r"step-(\d{8,})")
_log = logging.getLogger(__name__)


class CheckpointManager:
    """Keeps the checkpoints of a run, as ``step-00000100`` and so on in one directory.

    One manager may write at a time, from its first `save` until `close`; any number may read. It is a
    context that closes itself.

    Args:
        directory: Where the steps lie; made by the first `save`. Or their place in an object store, such
            as ``s3://bucket/run/checkpoints``, where any number of managers may write: of two that save
            the same step, the second gets an error.
        keep: Which steps stay: how many of the newest, at least 1, or a `Retention`; None keeps all.
        async_: Let `save` return once the state is copied, and write the copy in the background.
        incremental: Do not write again what the newest step holds bit for bit; see `reuse`. Not in
            object stores.
        compression: As for `save`.

    Raises:
        ArgumentError: `keep` is below 1, or there is no such compression.
    """

    def __init__(
        self,
        directory: Address,
        *,
        keep: int | Retention | None = 3,
        async_: bool = False,
        incremental: bool = False,
        compression: str | None = None,
    ) -> None:
        check_compression(compression)
        location = locate(directory)
        self.directory = location.place
        self._run = location.run()
        self.keep = keep if isinstance(keep, Retention) else Retention(last=keep)
        self.incremental = incremental
        self.compression = compression
        self._staging = Staging() if async_ else None
        self._writer = ThreadPoolExecutor(1, "checkpoint") if async_ else None
        self._writing: Future[None] | None = None
        self._trusted: int | None = None  # the step that was written, or verified, last

    def save(
        self, step: int, state: Mapping[str | int, Any], *, attributes: Mapping[str, Any] | None = None
    ) -> Place:
        """Save a step, then remove those that need not stay; see `save` for arguments and errors.

        A step of that number that is damaged is replaced; a good one is an error. Older steps go
        only when the new one is on the disk, and the new one always stays. In the background a step
        waits for the one before it, and raises that one's error.

        Raises:
            CheckpointError: Also where another manager writes to the directory.
        """
        older = self._make_room(step)
        content = Content.of(state, attributes)
        if self._writer and self._staging:
            self._writing = self._writer.submit(self._write, step, older, self._staging.copy(content))
        else:
            self._write(step, older, content)
        return self.path(step)

    @contextmanager
    def saving(self, step: int) -> Iterator[Place]:
        """Give the path at which others, such as several ranks, write a step while the block lasts.

        What `save` does besides writing is done before the block, and after it where it ends without error:
        a damaged step of that number goes, and so do those that need not stay beside the new one.

        Raises:
            CheckpointError: The step exists and is good, or another manager writes to the directory.
        """
        older = self._make_room(step)
        yield self.path(step)
        self._let_go(step, older)

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
            self._run.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def path(self, step: int) -> Place:
        """Return the directory of a step, whether it exists or not."""
        if step < 0:
            raise ArgumentError(f"step is {step}; allowed is at least 0")
        return self.directory / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """Return the steps that are on disk, ascending; none where the directory is missing."""
        return _steps(self._run.names())

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
        return self._removable(latest, self.steps())

    def prune(self) -> list[int]:
        """Remove the steps that need not stay, and return them.

        Raises:
            CheckpointError: No step is good, or another manager writes to the directory.
        """
        self.wait()
        self._run.claim()
        steps = self.removable()
        self._remove(steps)
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

    def _write(self, step: int, older: list[int], content: Content) -> None:
        previous = self.path(older[-1]) if self.incremental and older and self._is_sound(older[-1]) else None
        write_step(self.path(step), content, previous=previous, compression=self.compression)
        self._let_go(step, older)

    def _make_room(self, step: int) -> list[int]:
        """Claim the directory for a step that is to be written, and return the others."""
        path = self.path(step)
        self.wait()
        names = self._run.claim()
        if path.name in names:
            if _damage(path) is None:
                raise CheckpointError(f"{path} exists and is good; a checkpoint is never written over")
            self._run.remove([path.name])
            names.remove(path.name)
        return _steps(names)

    def _let_go(self, step: int, older: list[int]) -> None:
        """Remove those that need not stay beside a step that was written just now."""
        self._trusted = step
        try:
            self._remove(self._removable(step, [*older, step]))
        except CheckpointError as error:  # the step is saved; the next one tries again
            _log.warning("step %d is saved, but others stay that need not: %s", step, error)

    def _is_sound(self, step: int) -> bool:
        """Whether packs of a step may become the next one's: damage would be taken over with them.

        What this manager wrote itself is not read again, nor is what lies in an object store.
        """
        path = self.path(step)
        damage = _damage(path) if isinstance(path, Path) and step != self._trusted else None
        if damage is not None:
            _log.warning("nothing of step %d is taken over: %s", step, damage)
        return damage is None

    def _remove(self, steps: list[int]) -> None:
        self._run.remove([self.path(step).name for step in steps])

    def _removable(self, good: int, steps: list[int]) -> list[int]:
        return self.keep.removable(good, {step: self._metrics(step) for step in steps})

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


def steps_at(path: Address) -> list[Place]:
    """Return the checkpoints that a path means, ascending by step, good or not; nothing is read.

    Args:
        path: A checkpoint; or a run's directory, with steps in it or in its ``checkpoints``.

    Raises:
        CheckpointError: Nothing is there.
    """
    location = locate(path)
    given = location.place
    if location.is_checkpoint() or _STEP.fullmatch(given.name):
        return [given]
    for manager in (CheckpointManager(given / "checkpoints"), CheckpointManager(given)):
        if steps := manager.steps():
            return [manager.path(step) for step in steps]
    raise CheckpointError(
        f"{given} {location.state()}; allowed are a checkpoint's directory and a run's directory"
    )


def resolve(path: Address) -> Place:
    """Return the checkpoint that a path means, verified.

    Args:
        path: A checkpoint; or a run's directory, which means the newest step that verifies.

    Raises:
        CheckpointError: Nothing is there, or nothing good; names the damaged file and its array.
    """
    steps = steps_at(path)
    if steps == [locate(path).place]:
        with Checkpoint.open(path) as checkpoint:
            checkpoint.verify()
        return steps[0]
    manager = CheckpointManager(steps[0].parent)
    latest = manager.latest()
    if latest is None:
        raise CheckpointError(f"{path} has no good checkpoint; the newest: {_damage(steps[-1])}")
    return manager.path(latest)


def _damage(path: Place) -> CheckpointError | None:
    """Return what is wrong with a checkpoint, or None."""
    try:
        with Checkpoint.open(path) as checkpoint:
            checkpoint.verify()
    except CheckpointError as error:
        return error
    return None


def _steps(names: Iterable[str]) -> list[int]:
    matches = map(_STEP.fullmatch, names)
    return sorted(int(match[1]) for match in matches if match)
