"""The options of the logger. Imports neither torch nor ray."""

from __future__ import annotations

import attrs

from helix_kernel import option


@attrs.frozen(kw_only=True)
class RayLoggerConfig:
    """Reports to the Ray Tune trial that the run is part of; `helix ray tune` adds it by itself."""

    metric: str | None = option(
        None, help="report only where this is among the values, such as validation_loss; left out: always"
    )
