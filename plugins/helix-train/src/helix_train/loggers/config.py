"""The options of the loggers. Imports no torch."""

from __future__ import annotations

from typing import Literal

import attrs

from helix_kernel import option

WandbMode = Literal["online", "offline"]


@attrs.frozen(kw_only=True)
class CsvConfig:
    """A table for spreadsheets: a row a step, a column a metric."""

    file: str = option("metrics.csv", help="the file, below the run's directory or absolute")


@attrs.frozen(kw_only=True)
class TensorBoardConfig:
    """Event files that TensorBoard shows: curves, the config as text and as hyperparameters."""

    directory: str = option("tensorboard", help="where they go, below the run's directory or absolute")
    flush_seconds: float = option(10.0, help="most seconds until a value is on disk", gt=0)


@attrs.frozen(kw_only=True)
class WandbConfig:
    """A run for Weights & Biases."""

    project: str = option("helix", help="what the run is part of")
    entity: str | None = option(None, help="user or team that it belongs to; left out: the account's own")
    group: str | None = option(None, help="what it is shown together with")
    tags: tuple[str, ...] = option((), help="tags of the run")
    mode: WandbMode = option(
        "online", help="offline: nothing is sent; `wandb sync` sends what is in the run's directory"
    )


@attrs.frozen(kw_only=True)
class MLflowConfig:
    """A run for an MLflow tracking server or database."""

    tracking_uri: str | None = option(
        None,
        help="where to, such as http://host:5000 or sqlite:///mlflow.db; left out: MLFLOW_TRACKING_URI",
    )
    experiment: str = option("helix", help="what the run is part of; it is made where there is none")
    tags: dict[str, str] | None = option(None, help="tags of the run")
