"""Options of the schedules. Imports no torch."""

from __future__ import annotations

import attrs

from helix_kernel import option


@attrs.frozen(kw_only=True)
class ConstantConfig:
    """The full learning rate throughout, but for a warm-up."""

    total_steps: int = option(ge=1, help="steps of the whole run; added by the trainer")
    warmup_steps: int = option(0, ge=0, help="steps in which the rate grows linearly to its full value")


@attrs.frozen(kw_only=True)
class LinearConfig(ConstantConfig):
    """A straight line down to the final rate."""

    final: float = option(0.0, ge=0, help="rate at the end of the run, as a multiple of the full one")


@attrs.frozen(kw_only=True)
class ExponentialConfig(ConstantConfig):
    """The same factor at every step, down to the final rate."""

    final: float = option(0.01, gt=0, help="rate at the end of the run, as a multiple of the full one")


@attrs.frozen(kw_only=True)
class CosineConfig(ConstantConfig):
    """Half a cosine wave down to the final rate."""

    final: float = option(0.0, ge=0, help="rate at the end of the run, as a multiple of the full one")
