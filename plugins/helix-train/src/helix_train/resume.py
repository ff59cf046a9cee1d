"""Finds the checkpoint that a run goes on from, and puts its state back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel.checkpoint import CheckpointManager
from helix_kernel.errors import CheckpointError, InputError
from helix_kernel.restore import open_run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from helix_kernel.checkpoint.location import Place

_FREE_TO_CHANGE = (
    "trainer.out",
    "trainer.resume",
    "trainer.accept_versions",
    "trainer.initial_weights",
    "trainer.keep",
    "trainer.keep_every",
    "trainer.keep_best",
    "trainer.checkpoint_every",
    "trainer.checkpoint_async",
    "trainer.checkpoint_incremental",
    "trainer.checkpoint_compression",
    "trainer.measure_speed",
    "trainer.profile_steps",
    "trainer.samples",
    "trainer.loggers",
    "loader",
    "kernel.components",
)


@attrs.frozen(kw_only=True)
class Start:
    """A checkpoint to go on from.

    Args:
        checkpoint: Its path.
        attributes: What the earlier run recorded.
    """

    checkpoint: Place
    attributes: Mapping[str, Any]

    @property
    def step(self) -> int:
        """How many steps are done."""
        return int(self.attributes["step"])

    def differences(self, attributes: Mapping[str, Any]) -> Iterator[str]:
        """Yield a line for each thing that keeps the run from being the same as an uninterrupted one."""
        yield from changes(self.attributes["config"], attributes["config"], free=_FREE_TO_CHANGE)
        for key in ("data_fingerprint", "ops"):
            if self.attributes.get(key) != attributes[key]:
                yield _note(key, self.attributes.get(key), attributes[key])
        for key, value in attributes["environment"].items():
            saved = self.attributes["environment"].get(key)
            if saved != value:
                yield f"{_note(key, saved, value)}: rounding may differ"


def find_start(
    out: Path,
    resume: bool | str,  # noqa: FBT001 - the config's own value
    *,
    accept_versions: bool = False,
) -> Start | None:
    """Return what to go on from, or None for a run from the beginning.

    Args:
        out: The run's directory.
        resume: False, True (from the newest checkpoint in `out`), "auto" (the same if there is
            one), or a checkpoint's path.
        accept_versions: See `helix_kernel.restore.open_run`.

    Raises:
        InputError: `out` holds checkpoints that the run would have to write over: any where `resume`
            is False, later ones where it is a path.
        CheckpointError: There is nothing to resume from, or it is damaged.
        IncompatibleCheckpointError: A component's provider is missing or of another version.
    """
    own = CheckpointManager(out / "checkpoints")
    saved = own.steps()
    if resume is False:
        if saved:
            raise InputError(
                f"trainer.out: {str(out)!r} holds checkpoints already; go on with trainer.resume=true, "
                "or choose another trainer.out"
            )
        return None
    if resume == "auto" and not saved:
        return None
    if resume is True and not saved:
        raise CheckpointError(
            f"trainer.resume: there is no checkpoint in {str(out / 'checkpoints')!r}; check trainer.out, "
            'or set trainer.resume="auto" to begin where there is none'
        )
    newest = resume in (True, "auto")
    run = open_run(out if newest else str(resume), accept_versions=accept_versions)
    # Frozen anew, so that an option that is younger than the checkpoint has its default there.
    saved_config = run.config().to_dict()
    start = Start(checkpoint=run.path, attributes={**run.attributes, "config": saved_config})
    if not newest:
        _refuse_later(own, start.step)
    return start


def changes(
    before: Mapping[str, Any], now: Mapping[str, Any], *, free: tuple[str, ...] = ()
) -> Iterator[str]:
    """Yield a line for each option that two configs differ in, but for those free to change."""
    earlier, later = dict(_leaves(before)), dict(_leaves(now))
    for path in sorted(earlier.keys() | later.keys()):
        if earlier.get(path) != later.get(path) and not path.startswith(free):
            yield _note(path, earlier.get(path), later.get(path))


def _refuse_later(own: CheckpointManager, step: int) -> None:
    latest = own.latest()
    if latest is not None and latest > step:
        raise InputError(
            f"trainer.out: {str(own.directory)!r} holds a checkpoint of step {latest} already, later than "
            f"step {step} of trainer.resume; choose another trainer.out, or go on with trainer.resume=true"
        )


def _note(what: str, before: object, now: object) -> str:
    return f"note: {what} was {before!r} in the checkpoint, is {now!r} now"


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else key)
    else:
        yield path, value
