"""Options of the optimizers. Imports no torch.

The first four are torch's own classes, and these options carry torch's names and defaults; what is
left out here (``maximize``, ``capturable``, ``differentiable``) keeps torch's default.
"""

from __future__ import annotations

from typing import Any

import attrs

from helix_kernel import option
from helix_kernel.errors import ArgumentError

_FOREACH = "update many tensors in one kernel; left out, torch chooses by device"
_FUSED = "update in one fused kernel; left out, torch chooses by device"


@attrs.frozen(kw_only=True)
class OptimizerConfig:
    """What every optimizer is given."""

    params: Any = option(help="weights, or groups of weights; added by the trainer")


@attrs.frozen(kw_only=True)
class SGDConfig(OptimizerConfig):
    """Gradient descent with momentum."""

    lr: float = option(1e-3, ge=0, help="learning rate")
    momentum: float = option(0.0, ge=0, help="share of the last update that is kept")
    dampening: float = option(0.0, help="share of the gradient that momentum leaves out")
    weight_decay: float = option(0.0, ge=0, help="strength of the L2 penalty, added to the gradient")
    nesterov: bool = option(False, help="look ahead along the momentum")
    foreach: bool | None = option(None, help=_FOREACH)
    fused: bool | None = option(None, help=_FUSED)

    def __attrs_post_init__(self) -> None:
        _check_one_kernel(self.foreach, self.fused)
        if self.nesterov and (self.momentum <= 0 or self.dampening != 0):
            raise ArgumentError(
                f"nesterov is true with momentum={self.momentum} and dampening={self.dampening}; "
                "it needs momentum > 0 and dampening = 0"
            )


@attrs.frozen(kw_only=True)
class AdamConfig(OptimizerConfig):
    """Adaptive moments; weight decay is an L2 penalty (use adamw to have it decoupled)."""

    lr: float = option(1e-3, ge=0, help="learning rate")
    betas: tuple[float, float] = option(
        (0.9, 0.999), ge=0, lt=1, help="share of the first and of the second moment that a step keeps"
    )
    eps: float = option(1e-8, ge=0, help="added to the root of the second moment")
    weight_decay: float = option(0.0, ge=0, help="strength of the L2 penalty, added to the gradient")
    amsgrad: bool = option(False, help="divide by the largest second moment so far")
    foreach: bool | None = option(None, help=_FOREACH)
    fused: bool | None = option(None, help=_FUSED)

    def __attrs_post_init__(self) -> None:
        _check_one_kernel(self.foreach, self.fused)


@attrs.frozen(kw_only=True)
class AdamWConfig(AdamConfig):
    """Adaptive moments with decoupled weight decay."""

    weight_decay: float = option(
        1e-2, ge=0, help="share of a weight that a step removes, times the learning rate"
    )


@attrs.frozen(kw_only=True)
class RMSpropConfig(OptimizerConfig):
    """Gradient over its root mean square."""

    lr: float = option(1e-2, ge=0, help="learning rate")
    alpha: float = option(0.99, ge=0, lt=1, help="share of the mean square that a step keeps")
    eps: float = option(1e-8, ge=0, help="added to the root mean square")
    weight_decay: float = option(0.0, ge=0, help="strength of the L2 penalty, added to the gradient")
    momentum: float = option(0.0, ge=0, help="share of the last update that is kept")
    centered: bool = option(False, help="divide by the standard deviation instead")
    foreach: bool | None = option(None, help=_FOREACH)


@attrs.frozen(kw_only=True)
class LionConfig(OptimizerConfig):
    """Sign of an interpolated momentum; takes about a third of AdamW's learning rate."""

    lr: float = option(1e-4, ge=0, help="learning rate")
    betas: tuple[float, float] = option(
        (0.9, 0.99), ge=0, lt=1, help="share of the momentum in the update, and that a step keeps"
    )
    weight_decay: float = option(
        0.0, ge=0, help="share of a weight that a step removes, times the learning rate"
    )
    foreach: bool | None = option(None, help="update many tensors in one kernel; left out, only on CUDA")


def _check_one_kernel(foreach: bool | None, fused: bool | None) -> None:  # noqa: FBT001 - two options of a config
    if foreach and fused:
        raise ArgumentError("foreach and fused are both true: remove one of them")
