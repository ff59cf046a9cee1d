"""Options of the ways to align."""

from __future__ import annotations

import attrs

from helix_kernel import option


@attrs.frozen(kw_only=True)
class AlignmentConfig:
    """What every alignment is told."""

    d_model: int = option(help="Width of the tokens", ge=1)


@attrs.frozen(kw_only=True)
class InfoNCEConfig(AlignmentConfig):
    """Cosines of vectors over a learned temperature."""

    temperature: float = option(0.07, help="What cosines are divided by at first", gt=0)


@attrs.frozen(kw_only=True)
class SoftDTWConfig(AlignmentConfig):
    """The cost of warping one sequence onto another."""

    gamma: float = option(0.1, help="How soft the minimum over ways to warp is; near 0: hard", gt=0)
    divergence: bool = option(
        True, help="Whether what sequences cost with themselves is taken off, so that likeness costs nothing"
    )
    temperature: float = option(0.07, help="What costs are divided by at first", gt=0)


@attrs.frozen(kw_only=True)
class CTCConfig(AlignmentConfig):
    """The likelihood of a text, its bytes spread over tokens in any way."""

    upsample: int = option(1, help="Places for a byte that each token gives", ge=1)


@attrs.frozen(kw_only=True)
class SinkhornConfig(AlignmentConfig):
    """The cost of moving one set of tokens onto another."""

    epsilon: float = option(0.1, help="How much entropy a plan of transport is given; near 0: none", gt=0)
    n_iterations: int = option(20, help="Iterations that the plan is found by", ge=1)
    temperature: float = option(0.07, help="What costs are divided by at first", gt=0)
