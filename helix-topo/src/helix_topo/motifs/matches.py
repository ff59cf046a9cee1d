"""What is known at each place of a text: the motif that ends there, and what it lets expect."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from torch import Tensor

    from helix_topo.prediction import Prediction


@attrs.frozen(kw_only=True, eq=False)
class Matches:
    """What is known at N places.

    Args:
        prediction: What comes next at each.
        motif: (N,) int64: the id of the longest motif that ends at each, at least 0; -1 where none does. It
            is made of the motif's symbols alone, so one motif has one id wherever and whenever it comes.
        length: (N,) int64: the motif's length, 0 for none.
        count: (N,) int64: how often it came, as far as that is remembered.
        repeated: (B,) bool: which rows were written before. Only told where rows are written as a batch.
    """

    prediction: Prediction
    motif: Tensor
    length: Tensor
    count: Tensor
    repeated: Tensor
