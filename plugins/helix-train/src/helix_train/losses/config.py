"""Options of the losses. Imports no torch."""

from __future__ import annotations

from typing import Literal

import attrs

from helix_kernel import option
from helix_kernel.errors import ArgumentError


@attrs.frozen(kw_only=True)
class LossConfig:
    """What every loss has: how the losses of the elements become one number."""

    reduction: Literal["mean", "sum", "none"] = option(
        "mean", help="mean or sum over the elements that the mask keeps, or none: one value for each"
    )


@attrs.frozen(kw_only=True)
class CrossEntropyConfig(LossConfig):
    """Negative log-likelihood of integer targets under softmax."""

    label_smoothing: float = option(
        0.0, ge=0, le=1, help="probability that is spread evenly over all classes"
    )


@attrs.frozen(kw_only=True)
class MSEConfig(LossConfig):
    """Squared difference."""


@attrs.frozen(kw_only=True)
class L1Config(LossConfig):
    """Absolute difference."""


@attrs.frozen(kw_only=True)
class SmoothL1Config(LossConfig):
    """Squared difference near zero, absolute further out."""

    beta: float = option(1.0, gt=0, help="difference at which the parabola becomes a straight line")


@attrs.frozen(kw_only=True)
class BCEWithLogitsConfig(LossConfig):
    """Binary cross-entropy of logits."""

    pos_weight: float | None = option(None, gt=0, help="weight of positive targets, 1 if left out")


@attrs.frozen(kw_only=True)
class FocalConfig(LossConfig):
    """Cross-entropy that counts well-classified targets less."""

    activation: Literal["sigmoid", "softmax"] = option(
        "sigmoid", help="sigmoid: each logit is a yes or no of its own; softmax: one class among many"
    )
    gamma: float = option(2.0, ge=0, help="how fast well-classified targets fade; 0 is cross-entropy")
    alpha: float | None = option(
        None, ge=0, le=1, help="weight of positive targets, 1 - alpha of negative ones (sigmoid only)"
    )

    def __attrs_post_init__(self) -> None:
        check_alpha(self.activation, self.alpha)


def check_alpha(activation: str, alpha: float | None) -> None:
    """Raise `ArgumentError` where a weight of positive targets is given, but there are none."""
    if activation == "softmax" and alpha is not None:
        raise ArgumentError(
            f"alpha is {alpha!r} with activation='softmax', which has no positive targets: "
            "leave alpha out or use activation='sigmoid'"
        )
