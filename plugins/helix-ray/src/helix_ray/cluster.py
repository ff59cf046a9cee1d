"""Joins a Ray cluster, or starts one on this machine for as long as it is needed."""

from __future__ import annotations

import importlib
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from helix_kernel.errors import DependencyError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

_OBJECT_STORE_BYTES = 128 * 2**20
"""What passes through Ray are configs and numbers; Ray's own default is a third of the memory."""
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",  # many workers that import torch from one slow disk
    "RAY_AIR_NEW_OUTPUT": "0",  # whose boxes come whatever is asked for
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # a run writes files of its own
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial that measures nothing is told of at the end
}


@contextmanager
def connected(address: str, *, cpus: int) -> Iterator[None]:
    """Be part of a Ray cluster within the block; a process that is part of one already stays so.

    Args:
        address: "local" starts Ray on this machine and ends it after the block; "auto" is the cluster that
            runs here; else where one is, such as ``ray://host:10001``.
        cpus: How many a Ray of this machine must offer at least, be there so many or not.

    Raises:
        DependencyError: Ray, or what its parts need, is not installed.
        InputError: There is no cluster at `address`.
    """
    require_ray()
    import ray

    if ray.is_initialized():
        yield
        return
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        if address == "local":
            ray.init(
                address="local",
                num_cpus=max(cpus, os.cpu_count() or 1),
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                logging_level="ERROR",
            )
        else:
            ray.init(address=address, logging_level="ERROR")
    except (ConnectionError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"--address {address!r}: no Ray cluster answers there ({reason}); start one by "
            "`ray start --head`, or let --address be 'local'"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def require_ray() -> None:
    """Raise `DependencyError` unless Ray and what its training and tuning need can be imported."""
    for name in ("ray", "ray.train", "ray.tune"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise DependencyError(
                f"{name} cannot be imported ({str(error).partition(chr(10))[0]}); "
                "pip install 'ray[train,tune]>=2.60'"
            ) from error
