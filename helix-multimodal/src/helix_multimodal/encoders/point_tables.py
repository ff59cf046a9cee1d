"""What encoders and decoders of point clouds ask of a batch: points with the columns that they know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from helix_kernel.errors import ArgumentError
from helix_multimodal.encoders.batches import check_batch, own_values

if TYPE_CHECKING:
    from helix_multimodal.inputs import Padded


def point_table(name: str, batch: Padded, width: int) -> Tensor:
    """Return the first columns of the points, (B, N, width), zeros wherever a cloud has no point.

    A batch of missing samples alone, which may be of any size, counts as one of the width.

    Args:
        name: What errors call the component.
        batch: Clouds.
        width: 3, and 3 for each feature.

    Raises:
        ArgumentError: The batch is not of point clouds, or has fewer columns.
    """
    check_batch(name, batch, "point-cloud")
    lacking = width - batch.values.shape[2]
    if lacking > 0 and batch.present.any():
        raise ArgumentError(
            f"{name}: points have {batch.values.shape[2]} columns, allowed are {width} or more: 3, and 3 for "
            "each of the features"
        )
    values = own_values(batch)[..., :width]
    return nn.functional.pad(values, (0, lacking)) if lacking > 0 else values
