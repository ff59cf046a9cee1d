"""A run of one process, and what a run of several must do in its place."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import numpy as np

from helix_kernel import checkpoint as checkpoints
from helix_kernel.checkpoint import CheckpointManager
from helix_train.callbacks.base import Verdict
from helix_train.reporting import Reporter
from helix_train.state import load_rng_state, rng_state, seed_rngs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    import torch

    from helix_kernel.checkpoint import Retention
    from helix_kernel.checkpoint.location import Place
    from helix_train.objective import Losses
    from helix_train.progress import Progress
    from helix_train.state import State

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Standing:
    """What is to become of a step, as one rank sees it or as all have agreed.

    Args:
        verdict: What becomes of the gradients.
        signum: The signal that asks the run to end; 0 for none.
        ending: Why a callback ends the run; empty if none does.
    """

    verdict: Verdict = Verdict.PROCEED
    signum: int = 0
    ending: str = ""


class Ranks:
    """One process that trains alone.

    Args:
        device: What it trains on.
    """

    rank = 0
    world_size = 1

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._seed = 0

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that shows progress and writes what is written once."""
        return self.rank == 0

    def prepare(self, model: torch.nn.Module, *, streams: bool) -> torch.nn.Module:  # noqa: ARG002 - for several ranks
        """Return what is run forward to train `model`, whose parameters it may shard where they stand.

        Args:
            model: The same on all ranks.
            streams: Whether it is run by ``extend``, chunk by chunk, and not by what is returned.
        """
        return model

    def accumulating(self, *, last: bool) -> AbstractContextManager[object]:  # noqa: ARG002 - for several ranks
        """Return the context of a micro-batch's pass; only that of the last need join gradients."""
        return nullcontext()

    def noticing_losses(self) -> AbstractContextManager[object]:
        """Return a context in which the loss of another rank becomes a `HelixError`."""
        return nullcontext()

    def mean(self, losses: Losses) -> Losses:
        """Return the mean of all ranks' losses, the same to the bit on all."""
        return losses

    def agree(self, own: Standing) -> Standing:
        """Return what all ranks' standings come to: the strongest verdict, any signal, any ending."""
        return own

    def are_finite(self, tensors: Iterable[torch.Tensor]) -> bool:
        """Return whether no element is infinite or no number, on all ranks."""
        return all(bool(tensor.isfinite().all()) for tensor in tensors)

    def once(self, work: Callable[[], T]) -> T:
        """Let the first rank alone do something, and return what that gives, or raise its error, on all."""
        return work()

    def seed_apart(self, seed: int) -> None:
        """Let each rank draw random numbers of its own from here on; a single process goes on as it was."""
        self._seed = seed

    def reseed(self, seed: int) -> None:
        """Seed the global random number generators, each rank's otherwise."""
        seed_rngs(seed)

    def rng_state(self) -> State:
        """Return the state of the global random number generators; of several ranks, each by its name."""
        own = rng_state()
        return own if self.world_size == 1 else {f"rank-{self.rank}": own}

    def load_rng_state(self, saved: Mapping[str, Any], *, step: int) -> tuple[str, ...]:
        """Take on what all ranks' `rng_state` came to, and return what is to be told of it.

        Random numbers of one number of ranks cannot become those of another: they are drawn anew then.
        """
        n_saved = 1 if "torch" in saved else len(saved)
        if n_saved == self.world_size:
            load_rng_state(dict(saved if n_saved == 1 else saved[f"rank-{self.rank}"]))
            return ()
        derived = np.random.SeedSequence([self._seed, step, self.rank]).generate_state(1, np.uint64)[0]
        seed_rngs(int(derived) % 2**63)
        return (f"note: of {n_saved} ranks are now {self.world_size}, whose random numbers begin anew",)

    def manager(self, directory: Path, *, keep: Retention, **options: Any) -> Any:
        """Return what saves the run's checkpoints; see `CheckpointManager`."""
        return CheckpointManager(directory, keep=keep, **options)

    def load(self, checkpoint: Place, model: torch.nn.Module) -> dict[str | int, Any]:  # noqa: ARG002 - for shards
        """Return the state that a checkpoint holds; tensors that belong to a sharded `model`, as shards."""
        return checkpoints.load(checkpoint, as_torch=True)

    def reporter(self, progress: Progress, loggers: tuple[Any, ...]) -> Reporter:
        """Return what tells of the run."""
        return Reporter(progress, loggers)

    def close(self) -> None:
        """Leave the others."""
