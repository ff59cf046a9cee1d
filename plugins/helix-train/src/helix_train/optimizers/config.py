"""Options of the optimizers. Imports no torch.

The first four are torch's own classes, and these options carry torch's names and defaults; what is
left out here (``maximize``, ``capturable``, ``differentiable``) keeps torch's default.
"""

from __future__ import annotations

from typing import Any, Literal

import attrs

from helix_kernel import option
from helix_kernel.errors import ArgumentError

_FOREACH = "update many tensors in one kernel; left out, torch chooses by device"
_FOREACH_OF_OURS = "update many tensors in one kernel; left out, only on CUDA"
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
    foreach: bool | None = option(None, help=_FOREACH_OF_OURS)


@attrs.frozen(kw_only=True)
class ScheduleFreeAdamWConfig(OptimizerConfig):
    """AdamW with an average of weights instead of a falling rate; use it with schedule.use = "constant"."""

    lr: float = option(2.5e-3, ge=0, help="learning rate")
    betas: tuple[float, float] = option(
        (0.9, 0.999),
        ge=0,
        lt=1,
        help="share of the average in the weights, above 0; share of the second moment that a step keeps",
    )
    eps: float = option(1e-8, ge=0, help="added to the root of the second moment")
    weight_decay: float = option(
        0.0, ge=0, help="share of a weight that a step removes, times the learning rate"
    )
    foreach: bool | None = option(None, help=_FOREACH_OF_OURS)


@attrs.frozen(kw_only=True)
class ScheduleFreeSGDConfig(OptimizerConfig):
    """Gradient descent with an average of weights instead of a falling rate."""

    lr: float = option(1.0, ge=0, help="learning rate; 10 to 50 times that of sgd with momentum")
    momentum: float = option(0.9, gt=0, lt=1, help="share of the average in the weights")
    weight_decay: float = option(0.0, ge=0, help="strength of the L2 penalty, added to the gradient")
    foreach: bool | None = option(None, help=_FOREACH_OF_OURS)


@attrs.frozen(kw_only=True)
class MuonConfig(OptimizerConfig):
    """Orthogonal momentum for matrices; AdamW for vectors, embeddings and heads."""

    lr: float = option(0.02, ge=0, help="learning rate of matrices")
    momentum: float = option(0.95, ge=0, lt=1, help="share of the momentum that a step keeps")
    nesterov: bool = option(True, help="look ahead along the momentum")
    weight_decay: float = option(
        0.0, ge=0, help="share of a weight that a step removes, times its learning rate"
    )
    newton_schulz_steps: int = option(5, ge=1, lt=100, help="iterations that make a matrix orthogonal")
    scale: Literal["original", "match-rms-adamw"] = option(
        "original",
        help="factor of the rate by a matrix's shape; match-rms-adamw: one that suits AdamW's rates",
    )
    precision: Literal["full", "bf16"] = option(
        "full", help="of those iterations; bf16 as published, faster on GPUs"
    )
    use_muon: bool = option(True, help="false: AdamW throughout; for groups of weights")
    adamw_lr_factor: float = option(
        0.015, ge=0, help="learning rate of all but matrices, times lr; 1 suits match-rms-adamw"
    )
    betas: tuple[float, float] = option(
        (0.9, 0.95), ge=0, lt=1, help="AdamW's: share of the moments that a step keeps"
    )
    eps: float = option(1e-10, ge=0, help="AdamW's: added to the root of the second moment")
    foreach: bool | None = option(None, help=_FOREACH_OF_OURS)


@attrs.frozen(kw_only=True)
class SOAPConfig(OptimizerConfig):
    """Adam in the eigenbasis of Shampoo's preconditioner."""

    lr: float = option(3e-3, ge=0, help="learning rate")
    betas: tuple[float, float] = option(
        (0.95, 0.95), ge=0, lt=1, help="share of the momentum and of the second moments that a step keeps"
    )
    eps: float = option(1e-8, ge=0, help="added to the root of the second moment")
    weight_decay: float = option(
        0.01, ge=0, help="share of a weight that a step removes, times the learning rate"
    )
    precondition_every: int = option(10, ge=1, help="steps from one factorisation of bases to the next")
    max_dim: int = option(10_000, ge=1, help="longest axis of a weight that has a basis")
    foreach: bool | None = option(None, help=_FOREACH_OF_OURS)


def _check_one_kernel(foreach: bool | None, fused: bool | None) -> None:  # noqa: FBT001 - two options of a config
    if foreach and fused:
        raise ArgumentError("foreach and fused are both true: remove one of them")
