"""What ranks of any kind have in common: they agree, one tells, and each has random numbers of its own."""

from __future__ import annotations

import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import distributed

from helix_kernel.checkpoint.arrays import describe, plain_view
from helix_kernel.errors import HelixError
from helix_train.callbacks.base import Verdict
from helix_train.distributed_checkpoint.state_tree import local_part
from helix_train.objective import Losses
from helix_train.ranks.base import Ranks, Standing, T
from helix_train.ranks.joint_manager import JointManager
from helix_train.ranks.silent import SilentReporter
from helix_train.state import seed_rngs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from torch import Tensor

    from helix_kernel.checkpoint import Retention
    from helix_train.progress import Progress
    from helix_train.reporting import Reporter

_SHOWN = 3


class LostRankError(HelixError):
    """Another rank ended, or no longer answers; what went wrong there, it has told itself."""


class SeveralRanks(Ranks):
    """A rank of several that train one model.

    Args:
        device: What it trains on.
        began: Whether the process group was made for this, and so ends with it.
    """

    def __init__(self, device: torch.device, *, began: bool) -> None:
        super().__init__(device)
        self.rank = distributed.get_rank()
        self.world_size = distributed.get_world_size()
        self._began = began
        self._model = torch.nn.Module()
        # What ranks tell one another lies in the memory of the host: no accelerator need be waited for.
        self._group = (
            distributed.group.WORLD if device.type == "cpu" else distributed.new_group(backend="gloo")
        )

    @contextmanager
    def noticing_losses(self) -> Iterator[None]:
        """Turn what a collective raises without its other side into a `LostRankError`."""
        try:
            yield
        except RuntimeError as error:
            if not (isinstance(error, distributed.DistError) or "gloo" in str(error).lower()):
                raise
            reason = str(error).partition("\n")[0]
            raise LostRankError(
                f"rank {self.rank}: another rank ended or does not answer, see its own message ({reason})"
            ) from error

    def mean(self, losses: Losses) -> Losses:
        """Return the mean of all ranks' losses; see `Ranks.mean`."""
        parts = [losses.task, *([] if losses.auxiliary is None else [losses.auxiliary])]
        means = self._of_all(torch.stack([part.double().cpu() for part in parts])).mean(dim=0)
        return Losses(task=means[0], auxiliary=None if losses.auxiliary is None else means[1])

    def agree(self, own: Standing) -> Standing:
        """Return what all standings come to; see `Ranks.agree`."""
        numbers = torch.tensor([own.verdict, own.signum, bool(own.ending)], dtype=torch.float64)
        verdict, signum, ending = (int(value) for value in self._of_all(numbers).amax(dim=0))
        told = own.ending or "a callback of another rank ends the run"
        return Standing(verdict=Verdict(verdict), signum=signum, ending=told if ending else "")

    def are_finite(self, tensors: Iterable[torch.Tensor]) -> bool:
        """Return whether all elements are finite on all ranks, each of which looks at what it holds."""
        own = super().are_finite(local_part(tensor) for tensor in tensors)
        return bool(self._of_all(torch.tensor([own], dtype=torch.float64)).all())

    def once(self, work: Callable[[], T]) -> T:
        """Let rank 0 work; see `Ranks.once`."""
        outcome: list[Any] = [None, None]
        if self.is_first:
            try:
                outcome[0] = work()
            except (HelixError, OSError) as error:
                outcome[1] = error
        with self.noticing_losses():
            distributed.broadcast_object_list(outcome, src=0, group=self._group)
        result, failure = outcome
        if failure is not None:
            raise failure
        found: T = result
        return found

    def seed_apart(self, seed: int) -> None:
        """Let each rank draw random numbers of its own; see `Ranks.seed_apart`."""
        super().seed_apart(seed)
        self.reseed(seed)

    def reseed(self, seed: int) -> None:
        """Seed the global random number generators by the seed and the rank."""
        seed_rngs(int(np.random.SeedSequence([seed, self.rank]).generate_state(1, np.uint64)[0]) % 2**63)

    def manager(self, directory: Path, *, keep: Retention, **options: Any) -> JointManager:
        """Return what lets all ranks save together; see `JointManager`."""
        return JointManager(self, directory, keep=keep, group=self._group, **options)

    def reporter(self, progress: Progress, loggers: tuple[Any, ...]) -> Reporter:
        """Return what tells of the run, on rank 0; the others are silent."""
        return super().reporter(progress, loggers) if self.is_first else SilentReporter()

    def close(self) -> None:
        """Leave the process group, if it was made for this."""
        if self._began and distributed.is_initialized():
            distributed.destroy_process_group()

    def _of_all(self, own: Tensor) -> Tensor:
        """Return the values of all ranks, (world_size, …)."""
        found = [torch.empty_like(own) for _ in range(self.world_size)]
        with self.noticing_losses():
            distributed.all_gather(found, own, group=self._group)
        return torch.stack(found)

    def _require_alike(self, model: torch.nn.Module) -> None:
        """Raise `HelixError` unless every rank holds the same weights and buffers."""
        own = {name: _checksum(tensor, name) for name, tensor in model.state_dict().items()}
        found: list[Any] = [None] * self.world_size
        with self.noticing_losses():
            distributed.all_gather_object(found, own, group=self._group)
        for rank, other in enumerate(found):
            if odd := _differences(found[0], other):
                more = f" and {len(odd) - _SHOWN} more" if len(odd) > _SHOWN else ""
                raise HelixError(
                    f"rank {rank} begins with other weights than rank 0: {', '.join(odd[:_SHOWN])}{more}; "
                    "the model must draw them from the global generators, which trainer.seed seeds, and all "
                    "ranks must run the same code and config"
                )

    @torch.no_grad()
    def _share_buffers(self) -> None:
        """Let all ranks go on with the buffers of rank 0, such as statistics of what it has seen."""
        saved = self._model.state_dict().keys()
        for name, buffer in self._model.named_buffers():
            if name in saved:
                distributed.broadcast(buffer, src=0)


def _checksum(tensor: Tensor, name: str) -> int:
    plain = tensor.detach().cpu().contiguous()
    view = plain_view(plain, describe(plain, name)[1])
    assert view is not None
    return zlib.crc32(view.tobytes())


def _differences(left: Mapping[str, int], right: Mapping[str, int]) -> list[str]:
    return [name for name in left.keys() | right.keys() if left.get(name) != right.get(name)]
