"""Lets the processes that torchrun started find one another, and none of those that it started before."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

from torch import distributed
from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from helix_kernel.errors import HelixError

if TYPE_CHECKING:
    from datetime import timedelta

_PAUSE_S = 0.02


def begin_group(backend: str, timeout: timedelta) -> None:
    """Make the process group of all processes, as the environment says where they meet.

    Where torchrun starts processes anew after one has died, they meet at the store that those before them
    have left their addresses in, and would try to reach the dead. So all move to a new place in it.

    Raises:
        HelixError: The others do not come in time.
    """
    store, rank, world_size = next(rendezvous("env://", timeout=timeout))
    deadline = time.monotonic() + timeout.total_seconds()
    fresh = PrefixStore(_new_place(store, rank, world_size, deadline), store)
    distributed.init_process_group(backend, store=fresh, rank=rank, world_size=world_size, timeout=timeout)


def _new_place(store: Store, rank: int, world_size: int, deadline: float) -> str:
    """Return a name that rank 0 has drawn, once it is known to all processes that live.

    Each rank writes down a name of its own. Rank 0 tells which names it sees; whoever finds the own name
    among them knows that a living rank 0 has told it, and confirms rank 0's.
    """
    own = secrets.token_hex(8)
    names = [f"helix/name/{other}" for other in range(world_size)]
    confirmed = [f"helix/confirmed/{other}" for other in range(world_size)]
    store.set(names[rank], own)
    if rank == 0:
        store.set(confirmed[0], own)
        while _seen(store, confirmed) != [own] * world_size:
            store.set("helix/told", " ".join([own, *_seen(store, names)]))
            _pause(rank, deadline)
        return own
    while own not in (told := " ".join(_seen(store, ["helix/told"])).split()):
        _pause(rank, deadline)
    store.set(confirmed[rank], told[0])
    return told[0]


def _seen(store: Store, keys: list[str]) -> list[str]:
    """Return the values of the keys that there are."""
    return [store.get(key).decode() for key in keys if store.check([key])]


def _pause(rank: int, deadline: float) -> None:
    if time.monotonic() > deadline:
        raise HelixError(
            f"rank {rank}: the other ranks did not come; see their messages, and that every machine was "
            "given the same --nnodes, --rdzv-endpoint and --rdzv-id"
        )
    time.sleep(_PAUSE_S)
