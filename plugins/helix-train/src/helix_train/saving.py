"""What a checkpoint of a run holds, and how a run takes it on again."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import torch

from helix_kernel.checkpoint import Retention
from helix_kernel.errors import ArgumentError, IncompatibleCheckpointError
from helix_kernel.nesting import flatten, nest
from helix_kernel.restore import load_weights
from helix_train.state import load_optimizer_state, optimizer_state
from helix_train.upgraded_state import upgraded_state

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from helix_kernel.config import Resolved
    from helix_train.callbacks.base import Callback
    from helix_train.config import TrainerConfig
    from helix_train.precision import Precision
    from helix_train.ranks.base import Ranks


@attrs.frozen(kw_only=True)
class Place:
    """Where a run stands.

    Args:
        step: Steps done.
        rows: Examples taken from the endless sequence of data, over all ranks.
        reseeds: How often the run rolled back and drew anew.
    """

    step: int = 0
    rows: int = 0
    reseeds: int = 0


@attrs.frozen(kw_only=True)
class Learner:
    """All that changes as a run trains.

    Args:
        model: Its weights and buffers.
        optimizer: Its moments.
        precision: Its loss scale.
        ranks: Their random numbers.
        callbacks: Their states.
    """

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    precision: Precision
    ranks: Ranks
    callbacks: Sequence[Callback] = ()

    def state(self, place: Place) -> dict[str | int, Any]:
        """Return what a checkpoint holds: nested tensors and plain values."""
        state: dict[str | int, Any] = {
            "model": nest(self.model.state_dict()),
            "optimizer": optimizer_state(self.optimizer, self.model),
            "rng": self.ranks.rng_state(),
            "data": {"rows": torch.tensor(place.rows), "reseeds": place.reseeds},
            "step": place.step,
            "loss_scale": self.precision.state_dict(),
            "callbacks": {name: callback.state_dict() for name, callback in self._named_callbacks().items()},
        }
        averaged = averaged_weights(self.optimizer, self.model, self.callbacks)
        return state if averaged is None else {**state, "averaged": nest(dict(averaged))}

    def restore(
        self, checkpoint: Any, optimizer: str, chosen: Resolved, *, batch_size: int
    ) -> tuple[Place, tuple[str, ...]]:
        """Take on the state of a checkpoint: weights, moments, random numbers and what callbacks remember.

        Args:
            checkpoint: Where it lies.
            optimizer: The qualified name of the optimizer that it was trained by.
            chosen: The optimizer as the config of now describes it: its options count, not the saved ones.
            batch_size: Rows of a batch, by which the first checkpoints counted.

        Returns:
            Where the run stood, and a line for each callback that the checkpoint or the config lacks, and
            where ranks cannot go on with the saved random numbers.

        Raises:
            IncompatibleCheckpointError: The checkpoint is of another architecture or optimizer.
        """
        if optimizer != chosen.component.qualified:
            raise IncompatibleCheckpointError(
                f"{checkpoint} holds the state of the optimizer {optimizer!r}, optimizer.use is "
                f"{chosen.component.qualified!r}; set it back, or begin a run with trainer.resume=false"
            )
        state = upgraded_state(self.ranks.load(checkpoint, self.model), self.model, checkpoint)
        load_weights(self.model, state["model"], str(checkpoint))
        load_optimizer_state(self.optimizer, self.model, state["optimizer"], options=chosen.arguments)
        notes = self.ranks.load_rng_state(state["rng"], step=int(state["step"]))
        if "loss_scale" in state:  # younger than the first checkpoints
            self.precision.load_state_dict(state["loss_scale"])
        notes += self._restore_callbacks(state.get("callbacks", {}), state.get("averaged"))
        data = state["data"]
        rows = data["rows"] if "rows" in data else data["position"] * batch_size
        place = Place(step=int(state["step"]), rows=int(rows), reseeds=int(data.get("reseeds", 0)))
        return place, notes

    def _restore_callbacks(self, saved: Mapping[str, Any], averaged: Any) -> tuple[str, ...]:
        named = self._named_callbacks()
        for name in named.keys() & saved.keys():
            named[name].load_state_dict(saved[name])
            if averaged is not None:
                named[name].load_averaged(flatten(averaged))
        new = [
            f"note: callback {name} is not in the checkpoint; it begins now"
            for name in named.keys() - saved.keys()
        ]
        gone = [
            f"note: callback {name} of the checkpoint is left out now" for name in saved.keys() - named.keys()
        ]
        return tuple(sorted(new) + sorted(gone))

    def _named_callbacks(self) -> dict[str, Callback]:
        named: dict[str, Callback] = {}
        for callback in self.callbacks:
            again = sum(other.name == callback.name for other in named.values())
            named[f"{callback.name}-{again + 1}" if again else callback.name] = callback
        return named


def open_manager(options: TrainerConfig, ranks: Ranks) -> Any:
    """Return what saves the checkpoints of a run; see `helix_kernel.checkpoint.CheckpointManager`."""
    return ranks.manager(
        Path(options.out) / "checkpoints",
        keep=Retention(
            last=options.keep,
            every=options.keep_every or None,
            best=options.keep_best,
            metric="held_out_loss" if options.keep_best else None,
        ),
        async_=options.checkpoint_async,
        incremental=options.checkpoint_incremental,
        compression=options.checkpoint_compression,
    )


def averaged_weights(
    optimizer: torch.optim.Optimizer, model: torch.nn.Module, callbacks: Sequence[Callback]
) -> Mapping[str, torch.Tensor] | None:
    """Return the weights by name that are to be evaluated and served instead of the trained ones, if any.

    They are a callback's, such as those of `ema`, or else those that a schedule-free optimizer puts in place
    by its method ``eval()``, until ``train()`` takes them away.

    Raises:
        ArgumentError: Two callbacks keep some.
    """
    kept = [(callback.name, found) for callback in callbacks if (found := callback.averaged()) is not None]
    if len(kept) > 1:
        raise ArgumentError(
            f"{len(kept)} of trainer.callbacks keep averaged weights, and a checkpoint holds one average; "
            f"leave all but one out: {', '.join(name for name, _ in kept)}"
        )
    if kept:
        return kept[0][1]
    if not (hasattr(optimizer, "eval") and hasattr(optimizer, "train")):
        return None
    optimizer.eval()
    # A weight that is shared by two modules has two names, as in the state of the model beside it.
    named = model.named_parameters(remove_duplicate=False)
    averaged = {name: parameter.detach().clone() for name, parameter in named}
    optimizer.train()
    return averaged


@contextmanager
def averaged_in_place(model: torch.nn.Module, averaged: Mapping[str, torch.Tensor] | None) -> Iterator[None]:
    """Hold averaged weights in the model within the block; the trained ones come back to the bit."""
    if averaged is None:
        yield
        return
    own = {name: tensor for name, tensor in model.state_dict().items() if name in averaged}
    trained = {name: tensor.clone() for name, tensor in own.items()}
    _copy(averaged, own)
    try:
        yield
    finally:
        _copy(trained, own)


@torch.no_grad()
def _copy(source: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in target.items():
        tensor.copy_(source[name])
