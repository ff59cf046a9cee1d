"""Options of what umbrella-noise offers. Imports no torch."""

from __future__ import annotations

import attrs

from helix_kernel import option


@attrs.frozen(kw_only=True)
class SwapNeighboursConfig:
    """Bytes that change places with the next one."""

    rate: float = option(0.1, ge=0, le=1, help="chance of each pair, 2k and 2k + 1, to be swapped")
