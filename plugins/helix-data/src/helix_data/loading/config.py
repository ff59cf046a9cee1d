"""Options of the loaders. Imports no torch and no numpy."""

from __future__ import annotations

from typing import Any

import attrs

from helix_kernel import option


@attrs.frozen(kw_only=True)
class PrefetchConfig:
    """Batches in order, made in the training process or ahead of it in workers."""

    dataset: Any = option(help="makes the batches")
    seed: int = option(help="of the order of the examples")
    rank: int = option(0, ge=0, help="which share of a global batch is made")
    world_size: int = option(1, ge=1, help="shares of a global batch")
    workers: int = option(
        0, ge=0, help="processes that make batches ahead; 0: each is made when it is asked for"
    )
    prefetch: int = option(2, ge=1, help="batches that each worker may have made or be making ahead")
    timeout: float = option(
        0.0, ge=0, help="seconds to wait for a batch of a worker; 0: as long as the worker lives"
    )
    pin_memory: bool = option(False, help="put batches into page-locked memory, for fast copies to a GPU")
