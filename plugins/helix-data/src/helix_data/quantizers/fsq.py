"""The layer `fsq`: vectors rounded to a small grid, which is a codebook that nothing has to learn."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from vector_quantize_pytorch import FSQ as Grid  # noqa: N811 - the layer has the component's name

from helix_data.quantizers.config import check_levels
from helix_data.quantizers.quantizer import Quantizer, exactly

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class FSQ(Quantizer):
    """Finite scalar quantization: each of a few dimensions is bounded and rounded to a few values.

    Mentzer et al. 2023, arXiv:2309.15505, section 3.1 and appendix A.1, over the library
    vector-quantize-pytorch. The id of a grid point counts in mixed radix, the first dimension fastest. The
    rounding passes the gradient of the bounding function. There is no loss of its own and no codebook.

    Args:
        d_model: Width D of input and output; a learnt map leads to the grid, and another back.
        levels: Values of each dimension, 3 to 256 each and 2**20 points at most. The paper's for about
            1,000 codes is 8, 5, 5, 5 (table 1).
        use_batches: Training batches over which the use of codes is measured.

    Raises:
        ArgumentError: An argument is out of range.
    """

    def __init__(self, d_model: int, *, levels: Sequence[int] = (8, 5, 5, 5), use_batches: int = 100) -> None:
        check_levels(tuple(levels))
        super().__init__(
            "fsq", d_model, codebook_dim=len(levels), n_codes=math.prod(levels), use_batches=use_batches
        )
        self.levels = tuple(levels)
        self._library: Any = Grid(levels=list(levels))

    def _learn(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        codes, ids = self._library(z)
        return exactly(self._look_up(ids), codes), ids.long(), None

    def _passed(self, z: Tensor) -> Tensor:
        return self._learn(z)[0]

    def _choose(self, z: Tensor) -> Tensor:
        ids: Tensor = self._library(z)[1]
        return ids.long()

    def _look_up(self, ids: Tensor) -> Tensor:
        codes: Tensor = self._library.indices_to_codes(ids)
        return codes.float()
