"""The options of the loggers. Imports no torch."""

from __future__ import annotations

import attrs

from helix_kernel import option


@attrs.frozen(kw_only=True)
class CsvConfig:
    """A table for spreadsheets: a row a step, a column a metric."""

    file: str = option("metrics.csv", help="the file, below the run's directory or absolute")
