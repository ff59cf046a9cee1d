"""Metrics of the probability that predictions give to targets: perplexity and bits per byte."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from helix_kernel.errors import ArgumentError
from helix_train.losses.checks import check_classes, check_classes_last
from helix_train.metrics.base import Metric


class LikelihoodMetric(Metric):
    """What both share: the sum of negative log-likelihoods, in nats.

    Prediction is logits (..., V) and target (...) of any integer dtype, 0 to V - 1.
    """

    def check_shapes(self, prediction: Tensor, target: Tensor) -> None:
        """Raise `ArgumentError` unless the prediction is the target's shape and one axis of classes."""
        check_classes_last(prediction, target)

    def measure(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return how many targets there are, and the sum of their negative log-likelihoods in nats."""
        check_classes(target, prediction.shape[-1])
        losses = F.cross_entropy(prediction, target.long(), reduction="none")
        return {"nats": losses.cpu().double().sum(), "count": torch.tensor(target.numel())}


class Perplexity(LikelihoodMetric):
    """Exponential of the mean negative log-likelihood of a target; inf where no float is as large."""

    name = "perplexity"

    def compute(self) -> float:
        """Return the perplexity; nan where there was no target."""
        try:
            return math.exp(self.ratio("nats", "count"))
        except OverflowError:
            return math.inf


class BitsPerByte(LikelihoodMetric):
    """Negative log-likelihood in bits of as many targets as a byte of text has: comparable over tokenizers.

    Args:
        tokens_per_byte: Targets of a byte of text, above 0; None is the dataset's own number, 1 where it
            has none.

    Raises:
        ArgumentError: `tokens_per_byte` is not above 0, or the dataset says that its targets are no text.
    """

    name = "bits_per_byte"

    def __init__(self, *, tokens_per_byte: float | None = None) -> None:
        super().__init__()
        if tokens_per_byte is not None and not tokens_per_byte > 0:
            raise ArgumentError(f"tokens_per_byte is {tokens_per_byte!r}, allowed is > 0")
        self.tokens_per_byte = tokens_per_byte
        self._tokens_per_byte = tokens_per_byte or 1.0

    def begin(self, dataset: Any) -> None:
        """Take the number of tokens in a byte from the dataset."""
        if self.tokens_per_byte is not None:
            return
        found = getattr(dataset, "tokens_per_byte", 1.0)
        if found is None:
            raise ArgumentError(
                f"metric bits-per-byte: the targets of {type(dataset).__name__} are no text; leave it out"
            )
        self._tokens_per_byte = found

    def compute(self) -> float:
        """Return the bits of a byte; nan where there was no target."""
        return self.ratio("nats", "count") / math.log(2) * self._tokens_per_byte
