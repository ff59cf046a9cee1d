"""Options of the layers."""

import attrs

from helix_kernel import option


@attrs.frozen(kw_only=True)
class EMAConfig:
    """An exponential moving average of each channel."""

    d_model: int = option(ge=1, help="channels")
    decay: float = option(
        0.9,
        ge=0,
        lt=1,
        help="how much of the average a token keeps, at first",
        deprecated={"rate": "0.2"},
    )
