"""The number format that the forward pass runs in, and the scale that keeps fp16's gradients alive."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_HIGHEST_SCALE, _GROW_AFTER = 2.0**24, 2000


class Precision:
    """Autocast, and for fp16 a loss scale that follows the gradients.

    Small gradients vanish in fp16, so the loss is multiplied by a scale and the gradients are divided by it
    (Micikevicius et al. 2018, arXiv:1710.03740, section 3.2). A step whose gradient is not finite is left
    out and halves the scale; 2000 steps without one double it. The choice rests on the norm of the whole
    gradient alone, so that all ranks make the same.

    Args:
        name: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        device_type: Such as ``"cpu"``.
    """

    def __init__(self, name: str, device_type: str) -> None:
        self.name = name
        self._device_type = device_type
        self.scale = 2.0**16 if name == "fp16" else 1.0
        self._good_steps = 0

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that matrices are multiplied in."""
        return _AUTOCAST.get(self.name, torch.float32)

    def context(self) -> AbstractContextManager[object]:
        """Return the context that the model runs in."""
        if self.name == "fp32":
            return nullcontext()
        return torch.autocast(self._device_type, dtype=_AUTOCAST[self.name])

    @torch.no_grad()
    def unscale(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Divide gradients by the scale."""
        if self.scale == 1.0:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        torch._foreach_mul_(gradients, 1 / self.scale)

    def overflowed(self, norm: float) -> bool:
        """Adapt the scale to a step's gradient, and return whether the step must be left out for it."""
        if self.name != "fp16":
            return False
        # A gradient that is not finite at the smallest scale is no matter of the scale.
        if not math.isfinite(norm):
            self._good_steps = 0
            can_shrink = self.scale > 1.0
            self.scale = max(1.0, self.scale / 2)
            return can_shrink
        self._good_steps += 1
        if self._good_steps == _GROW_AFTER:
            self._good_steps, self.scale = 0, min(_HIGHEST_SCALE, self.scale * 2)
        return False

    def state_dict(self) -> dict[str, Any]:
        """Return the scale, how long it has been good, and the number format that it is of."""
        return {"precision": self.name, "scale": self.scale, "good_steps": self._good_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned; a run in another precision keeps its own scale."""
        # Older checkpoints do not name the format, but every scale above 1 is one of fp16.
        saved = state.get("precision", "fp16" if state["scale"] > 1.0 else "")
        if self.name == saved == "fp16":
            self.scale, self._good_steps = float(state["scale"]), int(state["good_steps"])
