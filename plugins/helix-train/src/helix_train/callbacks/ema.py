"""The callback `ema`: an exponential moving average of the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from helix_train.callbacks.base import Callback

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from helix_train.callbacks.base import Run


class EMA(Callback):
    """Keeps a <- d a + (1 - d) w after each step, of all floating-point weights and buffers w.

    The average is what is evaluated, and what a checkpoint's model is opened with; training goes on with the
    weights themselves (Polyak & Juditsky 1992; the exponential form: Tarvainen & Valpola 2017, section 2).

    Args:
        decay: d, the share of the average that an update keeps; 0 to below 1.
        every: Steps between updates.
        warm_up: Whether update n keeps at most (1 + n) / (10 + n), so that the first weights are forgotten.
    """

    name = "ema"

    def __init__(self, *, decay: float = 0.999, every: int = 1, warm_up: bool = True) -> None:
        self._decay = decay
        self._every = every
        self._warm_up = warm_up
        self._updates = 0
        self._average: dict[str, Tensor] = {}

    def begin(self, run: Run) -> None:
        """Start from the weights as they are, unless a checkpoint gave an average."""
        own = _averaged_tensors(run.model)
        if not self._average:
            self._average = {name: tensor.detach().clone() for name, tensor in own.items()}
            return
        self._average = {name: self._average[name].to(tensor, copy=True) for name, tensor in own.items()}

    def stepped(self, run: Run) -> None:
        """Take the new weights into the average."""
        if run.step % self._every:
            return
        self._updates += 1
        keep = self._decay
        if self._warm_up:
            keep = min(keep, (1 + self._updates) / (10 + self._updates))
        own = _averaged_tensors(run.model)
        with torch.no_grad():
            averages = [self._average[name] for name in own]
            torch._foreach_lerp_(averages, list(own.values()), 1 - keep)

    def rolled_back(self, run: Run) -> None:
        """Take on the average that the checkpoint gave."""
        self.begin(run)

    def averaged(self) -> Mapping[str, Tensor]:
        """Return the average by the names of the weights."""
        return self._average

    def load_averaged(self, weights: Mapping[str, Tensor]) -> None:
        """Take on an average that a checkpoint holds."""
        self._average = dict(weights)

    def state_dict(self) -> dict[str, Any]:
        """Return how often the average was updated; the trainer saves the average itself."""
        return {"updates": self._updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        self._updates = int(state["updates"])


def _averaged_tensors(model: Any) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
