"""What helix-ray offers: two commands, and the logger that a sweep's trials report by."""

from __future__ import annotations

import helix_kernel
from helix_kernel import Component


@helix_kernel.hookimpl
def helix_commands() -> list[Component]:
    """Return the commands."""
    return [
        Component(
            name="ray-train",
            aliases=("ray train",),
            target="helix_ray.commands:train",
            summary="Train what a config describes on a Ray cluster",
        ),
        Component(
            name="ray-tune",
            aliases=("ray tune",),
            target="helix_ray.commands:tune",
            summary="Sweep over keys of a config on a Ray cluster",
        ),
    ]


@helix_kernel.hookimpl
def helix_loggers() -> list[Component]:
    """Return the logger."""
    return [
        Component(
            name="ray",
            target="helix_ray.logger:RayLogger",
            config="helix_ray.config:RayLoggerConfig",
            summary="Metrics to the Ray Tune trial that the run is part of",
            requires=("ray",),
        )
    ]
