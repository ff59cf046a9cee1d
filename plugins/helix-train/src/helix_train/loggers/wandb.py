"""The logger `wandb`: a run for Weights & Biases, sent as it goes or kept on disk to be sent later."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel.errors import DependencyError, InputError
from helix_train.loggers.bookmark import Bookmark, read_bookmark, write_bookmark

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from helix_train.loggers.base import RunInfo, Status
    from helix_train.loggers.config import WandbMode

_EXIT_CODES = {"done": 0, "failed": 1, "interrupted": 255}


class WandbLogger:
    """Logs to Weights & Biases; a run that resumes goes on with the one that ``wandb.json`` in `out` names.

    Weights & Biases takes nothing back, and ignores values of a step before its last one: steps that are
    there already are not logged again, and of steps that a run went back over the first values stay, which
    do not count any more. ``metrics.jsonl`` has those that do.

    Args:
        project: What the run is part of.
        entity: User or team that it belongs to; left out: the account's own.
        group: What it is shown together with.
        tags: Tags of the run.
        mode: ``online``, or ``offline``: nothing is sent; ``wandb sync`` sends ``out/wandb/offline-run-*``.
    """

    def __init__(
        self,
        *,
        project: str = "helix",
        entity: str | None = None,
        group: str | None = None,
        tags: Sequence[str] = (),
        mode: WandbMode = "online",
    ) -> None:
        self._project = project
        self._entity = entity
        self._group = group
        self._tags = tuple(tags)
        self._mode = mode
        self._run: Any = None
        self._known = -1

    def begin(self, run: RunInfo) -> None:
        """Begin a run, or go on with one.

        Raises:
            DependencyError: wandb is not installed.
            InputError: It knows no account, or the options are wrong.
        """
        wandb = _wandb()
        self._path = run.out / "wandb.json"
        kept = read_bookmark(self._path) if run.step else None
        self._bookmark = kept or Bookmark(uuid.uuid4().hex[:8])
        self._known = self._bookmark.step
        run.out.mkdir(parents=True, exist_ok=True)
        try:
            self._run = wandb.init(
                id=self._bookmark.run_id,
                name=run.name,
                project=self._project,
                entity=self._entity,
                group=self._group,
                tags=self._tags,
                dir=run.out,
                mode=self._mode,
                config={**run.config, "environment": dict(run.environment)},
                resume="allow" if self._mode == "online" else None,
                reinit="create_new",
                settings=wandb.Settings(silent=True, console="off"),
            )
        except wandb.errors.UsageError as error:
            raise InputError(
                f"the logger wandb could not begin: {error}; log in with `wandb login`, or set mode='offline'"
            ) from error
        write_bookmark(self._path, self._bookmark)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log values, unless the run has those of that step since before it resumed."""
        if step <= self._known:
            return
        self._known = -1
        self._run.log(dict(values), step=step)
        self._bookmark = attrs.evolve(self._bookmark, step=step)
        write_bookmark(self._path, self._bookmark)

    def finish(self, status: Status) -> None:
        """Say how the run ended, and send or write what is left."""
        self._run.finish(exit_code=_EXIT_CODES[status])


def _wandb() -> Any:
    try:
        import wandb
    except ImportError as error:
        raise DependencyError(
            "the logger wandb needs wandb; install it with pip install 'helix-train[wandb]'"
        ) from error
    return wandb
