"""Several metrics that are measured at once, in one process or over many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

    from helix_train.metrics.base import Metric


class Metrics:
    """Metrics of one pass over held-out predictions, each with a name of its own.

    Args:
        metrics: Objects with the methods of `helix_train.metrics.base.Metric`; ``begin`` may be missing.

    Raises:
        ArgumentError: Two have the same name.
    """

    def __init__(self, metrics: Iterable[Metric] = ()) -> None:
        self._metrics: dict[str, Metric] = {}
        for metric in metrics:
            if metric.name in self._metrics:
                raise ArgumentError(f"trainer.metrics: two metrics are called {metric.name!r}; leave one out")
            self._metrics[metric.name] = metric

    def begin(self, dataset: Any) -> None:
        """Forget what was seen, and take from the dataset what values depend on."""
        for metric in self._metrics.values():
            metric.reset()
            if hasattr(metric, "begin"):
                metric.begin(dataset)

    def update(self, prediction: Tensor, target: Tensor, *, mask: Tensor | None = None) -> None:
        """Let a batch count in each metric.

        Raises:
            ArgumentError: A shape, dtype or value does not fit; the message names the metric.
        """
        for name, metric in self._metrics.items():
            try:
                metric.update(prediction, target, mask=mask)
            except ArgumentError as error:
                raise ArgumentError(f"metric {name}: {error}") from error

    def compute(self) -> dict[str, float]:
        """Return each metric's value by its name."""
        return {name: metric.compute() for name, metric in self._metrics.items()}

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Return each metric's state by its name."""
        return {name: metric.state() for name, metric in self._metrics.items()}

    def merge(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Add the states of another process."""
        for name, metric in self._metrics.items():
            metric.merge(state[name])

    def sum_over_ranks(self) -> None:
        """Make the state on every rank the sum over all, added in the order of ranks; all must call it.

        Does nothing where there is one process. A rank that saw no batch counts for nothing.
        """
        if not self._metrics or not (dist.is_available() and dist.is_initialized()):
            return
        states: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(states, self.state())
        for metric in self._metrics.values():
            metric.reset()
        for state in states:
            self.merge(state)
