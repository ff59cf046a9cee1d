"""Losses of logits against classes."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from helix_kernel.errors import ArgumentError, did_you_mean
from helix_train.losses.base import Loss, Reduction
from helix_train.losses.checks import check_classes, check_classes_last, may_look_at
from helix_train.losses.config import check_alpha

Activation = Literal["sigmoid", "softmax"]


class CrossEntropy(Loss):
    """Negative log-likelihood of integer targets under softmax, in nats.

    Prediction is (..., V) logits and target (...) of any integer dtype, 0 to V - 1; targets are classes,
    never probabilities. The range is checked on the CPU only; on a GPU looking would mean waiting, and
    torch itself traps there. A logit of -inf rules a class out and does no harm to the gradients of others;
    as a target, such a class costs inf.

    Args:
        label_smoothing: Probability that is spread evenly over all classes (Szegedy et al. 2016,
            "Rethinking the Inception architecture", section 7), 0 to 1.
        reduction: See `Loss`.

    Raises:
        ArgumentError: `label_smoothing` is out of range.
    """

    def __init__(self, *, label_smoothing: float = 0.0, reduction: Reduction = "mean") -> None:
        super().__init__(reduction=reduction)
        if not 0 <= label_smoothing <= 1:
            raise ArgumentError(f"label_smoothing is {label_smoothing!r}, allowed is >= 0 and <= 1")
        self.label_smoothing = label_smoothing

    def check_shapes(self, prediction: Tensor, target: Tensor) -> None:
        """Raise `ArgumentError` unless the prediction is the target's shape and one axis of classes."""
        check_classes_last(prediction, target)

    def check_values(self, target: Tensor, prediction: Tensor) -> None:
        """Raise `ArgumentError` unless the targets are classes."""
        check_classes(target, prediction.shape[-1])

    def elements(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return one loss an element."""
        return self._of_rows(prediction, target, "none").view(target.shape)

    def mean(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the mean of all elements as torch takes it, which makes no tensor of them."""
        return self._of_rows(prediction, target, "mean")

    def extra_repr(self) -> str:
        """Return what ``print`` shows."""
        return f"label_smoothing={self.label_smoothing}, {super().extra_repr()}"

    def _of_rows(self, prediction: Tensor, target: Tensor, reduction: Reduction) -> Tensor:
        return F.cross_entropy(
            prediction.flatten(end_dim=-2) if prediction.dim() > 1 else prediction,
            target.flatten().long() if target.dim() else target.long(),
            label_smoothing=self.label_smoothing,
            reduction=reduction,
        )


class BCEWithLogits(Loss):
    """Binary cross-entropy of logits x against targets y from 0 to 1, in nats.

    - (w y log sigmoid(x) + (1 - y) log sigmoid(-x)). Prediction and target have the same shape.

    Args:
        pos_weight: The weight w of positive targets, above 0; None is 1.
        reduction: See `Loss`.

    Raises:
        ArgumentError: `pos_weight` is not above 0.
    """

    def __init__(self, *, pos_weight: float | None = None, reduction: Reduction = "mean") -> None:
        super().__init__(reduction=reduction)
        if pos_weight is not None and not pos_weight > 0:
            raise ArgumentError(f"pos_weight is {pos_weight!r}, allowed is > 0")
        self.pos_weight = pos_weight

    def check_values(self, target: Tensor, prediction: Tensor) -> None:  # noqa: ARG002 - the base's signature
        """Raise `ArgumentError` unless the targets lie from 0 to 1."""
        if may_look_at(target):
            _check_all((target >= 0) & (target <= 1), target, "0 to 1")

    def elements(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return one loss an element."""
        y = target.to(prediction.dtype)
        weight = 1.0 if self.pos_weight is None else self.pos_weight
        return -(weight * y * F.logsigmoid(prediction) + (1 - y) * F.logsigmoid(-prediction))

    def extra_repr(self) -> str:
        """Return what ``print`` shows."""
        return f"pos_weight={self.pos_weight}, {super().extra_repr()}"


class Focal(Loss):
    """Cross-entropy that counts well-classified targets less (Lin et al. 2017, arXiv 1708.02002, equation 5).

    - alpha_t (1 - p_t)**gamma log(p_t), in nats, where p_t is the probability given to the true answer.
    With ``activation="sigmoid"``, the paper's, prediction and target have the same shape, targets are
    0 or 1, and alpha_t is alpha for positive targets and 1 - alpha for negative ones. With ``"softmax"``
    prediction is (..., V) and target (...) of any integer dtype, as for cross-entropy, and alpha_t is 1.
    Values of targets are checked on the CPU only.

    Args:
        activation: What turns logits into probabilities.
        gamma: How fast well-classified targets fade, at least 0; 0 is cross-entropy.
        alpha: Weight of positive targets, 0 to 1; None is weight 1 for all. The paper's choice is 0.25.
        reduction: See `Loss`.

    Raises:
        ArgumentError: An argument is out of range, or `alpha` is given with softmax.
    """

    def __init__(
        self,
        *,
        activation: Activation = "sigmoid",
        gamma: float = 2.0,
        alpha: float | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        known = get_args(Activation)
        if activation not in known:
            hint = did_you_mean(str(activation), known)
            raise ArgumentError(f"activation is {activation!r}, allowed is one of {known}.{hint}")
        if not gamma >= 0:
            raise ArgumentError(f"gamma is {gamma!r}, allowed is >= 0")
        if alpha is not None and not 0 <= alpha <= 1:
            raise ArgumentError(f"alpha is {alpha!r}, allowed is >= 0 and <= 1")
        check_alpha(activation, alpha)
        self.activation = activation
        self.gamma = gamma
        self.alpha = alpha

    def check_shapes(self, prediction: Tensor, target: Tensor) -> None:
        """Raise `ArgumentError` where the shapes do not fit."""
        if self.activation == "sigmoid":
            super().check_shapes(prediction, target)
        else:
            check_classes_last(prediction, target)

    def check_values(self, target: Tensor, prediction: Tensor) -> None:
        """Raise `ArgumentError` unless the targets are 0 or 1, or classes."""
        if self.activation == "softmax":
            check_classes(target, prediction.shape[-1])
        elif may_look_at(target):
            _check_all((target == 0) | (target == 1), target, "0 or 1")

    def elements(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return one loss an element."""
        if self.activation == "softmax":
            log_p, log_rest = _softmax_log_probabilities(prediction, target)
            return -torch.exp(self.gamma * log_rest) * log_p
        positive = target.bool()
        toward = torch.where(positive, prediction, -prediction)
        # Powers of 1 - p_t go through its logarithm, whose gradient is finite where p_t rounds to 1.
        loss = -torch.exp(self.gamma * F.logsigmoid(-toward)) * F.logsigmoid(toward)
        if self.alpha is None:
            return loss
        return torch.where(positive, self.alpha * loss, (1 - self.alpha) * loss)

    def extra_repr(self) -> str:
        """Return what ``print`` shows."""
        return (
            f"activation={self.activation!r}, gamma={self.gamma}, alpha={self.alpha}, {super().extra_repr()}"
        )


def _softmax_log_probabilities(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return log p and log(1 - p) of the target's class, each (...), exact where p rounds to 1."""
    index = target.long().unsqueeze(-1)
    log_p = F.log_softmax(logits, dim=-1)
    others = log_p.scatter(-1, index, float("-inf"))
    return log_p.gather(-1, index).squeeze(-1), others.logsumexp(dim=-1)


def _check_all(allowed: Tensor, target: Tensor, words: str) -> None:
    if not allowed.all():
        raise ArgumentError(f"target holds {target[~allowed][0].item():g}, allowed is {words}")
