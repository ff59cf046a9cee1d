"""Random numbers of a batch that depend on nothing but which batch it is."""

from __future__ import annotations

import hashlib
import random
import struct
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def batch_of(dataset: Any, *, seed: int, step: int, rank: int = 0, world_size: int = 1) -> Any:
    """Return a dataset's batch, the same in whatever process and whatever was drawn before.

    A dataset says by an attribute ``draws = False`` that it leaves the global generators alone. They are
    then not touched, which saves what `drawing_for` costs.

    Args:
        dataset: Has ``batch(*, seed, step)``; where there are several ranks, also ``rank`` and
            ``world_size``.
        seed: Decides the order of the examples.
        step: Number of the batch from 0.
        rank: Which share of a global batch is wanted.
        world_size: How many shares there are.
    """
    shares = {"rank": rank, "world_size": world_size} if world_size > 1 else {}
    if not getattr(dataset, "draws", True):
        return dataset.batch(seed=seed, step=step, **shares)
    with drawing_for(seed, step, rank):
        return dataset.batch(seed=seed, step=step, **shares)


@contextmanager
def drawing_for(seed: int, step: int, rank: int = 0) -> Iterator[None]:
    """Let the global generators give what belongs to a batch; then put them back to the bit.

    Those are the generators of `random`, of NumPy's functions ``numpy.random.*`` and of torch on the CPU;
    NumPy's and torch's where they are loaded when this begins. What seeds itself from the system, such as a
    bare ``numpy.random.default_rng()``, is out of reach. Nearly all of the cost is NumPy's, which copies its
    state word by word.

    Args:
        seed: Of the run; any integer.
        step: Number of the batch.
        rank: Which share of a global batch is drawn.
    """
    kept = list(_keep())
    try:
        seed_generators(seed, step, rank)
        yield
    finally:
        for put_back, state in kept:
            put_back(state)


def seed_generators(seed: int, step: int, rank: int = 0) -> None:
    """Seed the global generators, each with other bits of one hash of the arguments."""
    name = f"{seed} {step} {rank}".encode()
    digest = hashlib.blake2b(name, digest_size=40, person=b"helix drawing").digest()
    random.seed(int.from_bytes(digest[:16], "little"))
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(struct.unpack("<4I", digest[16:32]))
    if torch := sys.modules.get("torch"):
        torch.default_generator.manual_seed(int.from_bytes(digest[32:], "little"))


def _keep() -> Iterator[tuple[Callable[[Any], Any], Any]]:
    """Yield the state of each generator, after what puts it back."""
    yield random.setstate, random.getstate()
    if numpy := sys.modules.get("numpy"):
        yield numpy.random.set_state, numpy.random.get_state()
    if torch := sys.modules.get("torch"):
        yield torch.default_generator.set_state, torch.default_generator.get_state()
