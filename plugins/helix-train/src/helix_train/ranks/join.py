"""Finds out which of how many processes this is, and joins it with the others."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING

import attrs
import torch
from torch import distributed

from helix_kernel.errors import ArgumentError
from helix_train.device import choose_device
from helix_train.ranks.base import Ranks
from helix_train.ranks.rendezvous import begin_group

if TYPE_CHECKING:
    from helix_train.config import Parallel

_TIMEOUT = timedelta(minutes=10)
"""How long a rank waits for the others; one that dies is noticed when the system closes its sockets."""
_COMMAND = "torchrun --nproc-per-node=2 -m helix_kernel.cli train config.toml"


@attrs.frozen
class Launched:
    """What torchrun, or whoever made a process group before, says of this process.

    Args:
        world_size: Processes in all.
        local_rank: Number of this one on its machine.
        local_world_size: Processes on this machine.
    """

    world_size: int
    local_rank: int
    local_world_size: int

    @classmethod
    def find(cls) -> Launched | None:
        """Return it, or None for a process that was started alone."""
        if distributed.is_initialized():
            size = distributed.get_world_size()
        elif "RANK" in os.environ and "WORLD_SIZE" in os.environ:
            size = _number("WORLD_SIZE")
        else:
            return None
        return cls(size, _number("LOCAL_RANK", 0), _number("LOCAL_WORLD_SIZE", 1))


def join(parallel: Parallel, device: str) -> Ranks:
    """Join the processes that torchrun started, where it did.

    The process group is made here, unless there is one, and left by `Ranks.close`.

    Args:
        parallel: "auto" is "ddp" where there are several processes, else "none".
        device: See `choose_device`; of accelerators each process has that of its local rank.

    Raises:
        ArgumentError: `parallel` does not fit how the processes were started, or there is no device for each.
    """
    launched = Launched.find()
    _check(parallel, launched)
    if launched is None or (launched.world_size == 1 and parallel in ("auto", "none")):
        return Ranks(choose_device(device))
    own = _device_of(launched, choose_device(device))
    began = not distributed.is_initialized()
    if began:
        backend = "gloo" if own.type == "cpu" else f"cpu:gloo,{own.type}:{_backend(own)}"
        begin_group(backend, _TIMEOUT)
    if parallel == "fsdp2":
        from helix_train.ranks.fully_sharded import FullySharded

        return FullySharded(own, began=began)
    from helix_train.ranks.data_parallel import DataParallel

    return DataParallel(own, began=began)


def _check(parallel: Parallel, launched: Launched | None) -> None:
    if launched is None and parallel in ("ddp", "fsdp2"):
        raise ArgumentError(
            f"trainer.parallel is {parallel!r}, but this process was started alone; start it by torchrun: "
            f"{_COMMAND}; or set trainer.parallel='auto'"
        )
    if launched is not None and launched.world_size > 1 and parallel == "none":
        raise ArgumentError(
            f"trainer.parallel is 'none', but torchrun started {launched.world_size} processes, which would "
            "all train the same; allowed is 'auto', 'ddp' or 'fsdp2', or start it without torchrun"
        )


def _device_of(launched: Launched, device: torch.device) -> torch.device:
    if device.type == "cpu":
        return device
    index: int | None = device.index  # which torch's stub says is never None
    if index is not None and launched.local_world_size > 1:
        raise ArgumentError(
            f"trainer.device is '{device}', which {launched.local_world_size} processes would share; set "
            f"trainer.device='{device.type}': each has its own then"
        )
    count = torch.accelerator.device_count()
    if launched.local_rank >= count:
        raise ArgumentError(
            f"there are {launched.local_world_size} processes on this machine and {count} devices; start "
            f"torchrun with --nproc-per-node={count}"
        )
    own = device if index is not None else torch.device(device.type, launched.local_rank)
    torch.accelerator.set_device_index(own.index)
    return own


def _backend(device: torch.device) -> str:
    found: str = distributed.get_default_backend_for_device(device)
    return found


def _number(name: str, default: int | None = None) -> int:
    text = os.environ.get(name, "" if default is None else str(default))
    try:
        return int(text)
    except ValueError:
        raise ArgumentError(
            f"the environment variable {name} is {text!r}, torchrun sets a number; start by {_COMMAND}"
        ) from None
