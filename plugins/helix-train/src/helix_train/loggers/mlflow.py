"""The logger `mlflow`: a run's parameters, metrics and tags, for an MLflow tracking server or database."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from helix_kernel.errors import DependencyError, InputError
from helix_train.loggers.bookmark import Bookmark, read_bookmark, write_bookmark
from helix_train.loggers.flat import flat_config

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from helix_train.loggers.base import RunInfo, Status

_ENDS = {"done": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
_LONGEST_NAME, _LONGEST_VALUE, _LARGEST_BATCH = 240, 500, 100


class MLflowLogger:
    """Logs to MLflow; a run that resumes goes on with the MLflow run that ``mlflow.json`` in `out` names.

    MLflow takes nothing back: steps that are there already are not logged again, and of steps that a run went
    back over it keeps the first values too, with those that count after them. Characters that its names may
    not have become ``_``.

    Args:
        tracking_uri: Where to, such as ``http://host:5000`` or ``sqlite:///mlflow.db``; left out:
            ``MLFLOW_TRACKING_URI``.
        experiment: What the run is part of; it is made where there is none.
        tags: Tags of the run.
    """

    stand_in: ClassVar[str] = "helix_train.testing.services:mlflow_store"

    def __init__(
        self,
        *,
        tracking_uri: str | None = None,
        experiment: str = "helix",
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self._tracking_uri = tracking_uri
        self._experiment = experiment
        self._tags = dict(tags or {})
        self._names = _Names()
        self._client: Any = None
        self._known = -1

    def begin(self, run: RunInfo) -> None:
        """Make an MLflow run, or go on with one.

        Raises:
            DependencyError: MLflow is not installed.
            InputError: It is not said where to log to.
        """
        uri = self._tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            raise InputError(
                "the logger mlflow has no tracking_uri; set it, or MLFLOW_TRACKING_URI, to a server such as "
                "http://localhost:5000 or a database such as sqlite:///mlflow.db"
            )
        self._client = _client(uri)
        self._path = run.out / "mlflow.json"
        kept = read_bookmark(self._path) if run.step else None
        if kept is None:
            self._bookmark = Bookmark(self._created(run))
            write_bookmark(self._path, self._bookmark)
        else:
            self._bookmark, self._known = kept, kept.step
            self._client.update_run(kept.run_id, status="RUNNING")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log values, unless MLflow has those of that step since before the run resumed."""
        if step <= self._known or not values:
            return
        self._known = -1
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        metrics = [Metric(self._names.of(name), value, now, step) for name, value in values.items()]
        for part in _parts(metrics):
            self._client.log_batch(self._bookmark.run_id, metrics=part, synchronous=True)
        self._bookmark = attrs.evolve(self._bookmark, step=step)
        write_bookmark(self._path, self._bookmark)

    def drop_after(self, step: int) -> None:
        """Log the steps after one anew, whatever MLflow has of them: they are done with other data."""
        self._known = -1
        self._bookmark = attrs.evolve(self._bookmark, step=min(step, self._bookmark.step))
        write_bookmark(self._path, self._bookmark)

    def finish(self, status: Status) -> None:
        """Say how the run ended."""
        self._client.set_terminated(self._bookmark.run_id, status=_ENDS[status])

    def _created(self, run: RunInfo) -> str:
        from mlflow.entities import Param, RunTag

        experiment = self._client.get_experiment_by_name(self._experiment)
        experiment_id = (
            self._client.create_experiment(self._experiment)
            if experiment is None
            else experiment.experiment_id
        )
        created: str = self._client.create_run(experiment_id, run_name=run.name).info.run_id
        names = _Names()
        params = [
            Param(names.of(name), str(value)[:_LONGEST_VALUE])
            for name, value in flat_config(run.config).items()
        ]
        for part in _parts(params):
            self._client.log_batch(created, params=part, synchronous=True)
        environment = flat_config(run.environment, "environment")
        tags = [RunTag(name, str(value)) for name, value in {**environment, **self._tags}.items()]
        for part in _parts(tags):
            self._client.log_batch(created, tags=part, synchronous=True)
        return created


class _Names:
    """Names that MLflow allows, a different one for each name given."""

    def __init__(self) -> None:
        self._allowed: dict[str, str] = {}
        self._taken: set[str] = set()

    def of(self, name: str) -> str:
        """Return the allowed name for a name."""
        if name not in self._allowed:
            plain = _plain(name)
            candidates = (plain if number == 1 else f"{plain}_{number}" for number in range(1, 10**6))
            self._allowed[name] = next(found for found in candidates if found not in self._taken)
            self._taken.add(self._allowed[name])
        return self._allowed[name]


def _plain(name: str) -> str:
    parts = re.sub(r"[^\w./ -]", "_", name).split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))[:_LONGEST_NAME] or "_"


def _parts(items: list[Any]) -> Iterator[list[Any]]:
    """Cut a list into batches that MLflow takes."""
    for first in range(0, len(items), _LARGEST_BATCH):
        yield items[first : first + _LARGEST_BATCH]


def _client(uri: str) -> Any:
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise DependencyError(
            "the logger mlflow needs MLflow; install it with pip install 'helix-train[mlflow]'"
        ) from error
    return MlflowClient(tracking_uri=uri)
