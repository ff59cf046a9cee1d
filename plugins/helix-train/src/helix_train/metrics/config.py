"""Options of the metrics. Imports no torch."""

from __future__ import annotations

from typing import Literal

import attrs

from helix_kernel import option

_THRESHOLD = "logit above which an answer is yes, where each prediction is one logit"


@attrs.frozen(kw_only=True)
class MetricConfig:
    """A metric without options."""


@attrs.frozen(kw_only=True)
class AccuracyConfig(MetricConfig):
    """Share of targets whose class is the likeliest one."""

    threshold: float = option(0.0, help=_THRESHOLD)


@attrs.frozen(kw_only=True)
class TopKAccuracyConfig(MetricConfig):
    """Share of targets whose class is among the k likeliest ones."""

    k: int = option(5, ge=1, help="how many classes may be named")


@attrs.frozen(kw_only=True)
class ClassMetricConfig(MetricConfig):
    """Precision, recall or F1."""

    average: Literal["macro", "micro", "binary"] = option(
        "macro", help="over classes that occur, over the counts of all together, or of one class alone"
    )
    positive: int = option(1, ge=0, help="the class that binary is about")
    zero_division: float = option(0.0, ge=0, le=1, help="value of a class whose share is 0 of 0")
    threshold: float = option(0.0, help=_THRESHOLD)


@attrs.frozen(kw_only=True)
class BitsPerByteConfig(MetricConfig):
    """Negative log-likelihood in bits of a byte of text."""

    tokens_per_byte: float | None = option(
        None, gt=0, help="targets of a byte of text; left out, the dataset's own number"
    )
