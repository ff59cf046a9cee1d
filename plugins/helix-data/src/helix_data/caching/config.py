"""Options of the cache. Imports no torch and no numpy."""

from __future__ import annotations

from typing import Annotated, Any

import attrs

from helix_kernel import FactoryOf, option


@attrs.frozen(kw_only=True)
class CachedConfig:
    """Another dataset, whose decoded samples or batches are kept on disk."""

    data: Annotated[Any, FactoryOf("dataset")] = option(help="the dataset, as a table with use")
    path: str = option(help="the folder of the cache; several runs and datasets may share it")
    max_bytes: int = option(
        10 * 2**30, ge=2**20, help="bytes that the cache may take: what was used longest ago goes first"
    )
