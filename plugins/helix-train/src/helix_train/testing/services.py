"""Stand-ins for the services that loggers need, for their conformance suite."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING
from unittest import mock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def mlflow_store(folder: Path) -> Iterator[None]:
    """Let MLflow log to files in a folder: there is no server, and a database asks for SQLAlchemy."""
    # MLflow has given such stores up, and takes one only where it is told that this is known.
    store = {"MLFLOW_TRACKING_URI": (folder / "store").as_uri(), "MLFLOW_ALLOW_FILE_STORE": "true"}
    with mock.patch.dict(os.environ, store):
        yield
