"""The logger `ray`: what a run measures becomes the results of its Ray Tune trial."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from helix_kernel.errors import InputError
from helix_ray.cluster import require_ray

if TYPE_CHECKING:
    from collections.abc import Mapping


class RayLogger:
    """Reports a run's values to Ray Tune, which compares trials by them and may stop one.

    Args:
        metric: Report only where this is among the values; None: always. A scheduler then never takes an old
            value for one of a later step.
    """

    stand_in: ClassVar[str] = "helix_ray.testing:trial"

    def __init__(self, *, metric: str | None = None) -> None:
        self._metric = metric
        self._latest: dict[str, float] = {}

    def begin(self, run: Any) -> None:  # noqa: ARG002 - a trial knows its run
        """Hear that a run begins.

        Raises:
            InputError: The run is not part of a Ray Tune trial.
        """
        require_ray()
        from ray import tune

        if tune.get_context().get_trial_id() is None:
            raise InputError(
                "the logger 'ray' reports to Ray Tune, and this run is no trial of it; leave it out of "
                "trainer.loggers, helix ray tune adds it by itself"
            )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Report values, and those that other lines of the same run gave before."""
        from ray import tune

        self._latest.update(values)
        if self._metric is None or self._metric in values:
            tune.report({**self._latest, "step": step})

    def finish(self, status: str) -> None:
        """End; Ray sees by itself how the trial ended."""
