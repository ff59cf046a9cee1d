"""Options of the layers."""

import attrs

from helix_kernel import option


@attrs.frozen(kw_only=True)
class SmootherConfig:
    """A moving average of each channel."""

    d_model: int = option(ge=1, help="channels")
    rate: float = option(0.9, ge=0, lt=1, help="how much of the average a token keeps, at first")
