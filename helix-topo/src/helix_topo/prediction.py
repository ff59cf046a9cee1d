"""What a tier expects to come next, in the form in which tiers and models are mixed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from torch import Tensor


@attrs.frozen(kw_only=True, eq=False)
class Prediction:
    """What a tier expects next at N places.

    Args:
        probabilities: (N, V) float32; each row sums to 1, or is 0 where the tier knows nothing.
        bucket: (N,) int64, at least 0: which class of finds each is, such as one of the match's length and
            count; how far a tier is trusted is learned by class. 0 where the tier knows nothing.
    """

    probabilities: Tensor
    bucket: Tensor
