"""What helix-train offers."""

from __future__ import annotations

import helix_kernel
from helix_kernel import Component, Kind
from helix_train.parts import CALLBACKS, LOGGERS, LOSSES, METRICS, OPTIMIZERS, SCHEDULES


@helix_kernel.hookimpl
def helix_kinds() -> list[Kind]:
    """Bring the kinds that training adds to the kernel's."""
    return [
        Kind(
            name="schedule",
            plural="schedules",
            summary="Learning rate over the steps of a run, as a multiple of the optimizer's",
            section="schedule",
            context=("total_steps",),
            suite="helix_train.testing.schedules:ScheduleSuite",
            template="helix_train:templates/schedule",
        ),
        Kind(
            name="trainer",
            plural="trainers",
            summary="What turns a config into a trained model",
            section="trainer",
            default="trainer",
            context=("config",),
        ),
        Kind(
            name="logger",
            plural="loggers",
            summary="Where a run's metrics go, besides the files that every run writes",
            suite="helix_train.testing.loggers:LoggerSuite",
            template="helix_train:templates/logger",
        ),
        Kind(
            name="callback",
            plural="callbacks",
            summary="What looks on, and has a say, while a run trains",
            suite="helix_train.testing.callbacks:CallbackSuite",
            template="helix_train:templates/callback",
        ),
        Kind(
            name="metric",
            plural="metrics",
            summary="What is measured of held-out predictions, besides the loss",
            suite="helix_train.testing.metrics:MetricSuite",
            template="helix_train:templates/metric",
        ),
    ]


@helix_kernel.hookimpl
def helix_losses() -> list[Component]:
    """Return the losses."""
    return list(LOSSES)


@helix_kernel.hookimpl
def helix_optimizers() -> list[Component]:
    """Return the optimizers."""
    return list(OPTIMIZERS)


@helix_kernel.hookimpl
def helix_schedules() -> list[Component]:
    """Return the schedules."""
    return list(SCHEDULES)


@helix_kernel.hookimpl
def helix_loggers() -> list[Component]:
    """Return the loggers."""
    return list(LOGGERS)


@helix_kernel.hookimpl
def helix_metrics() -> list[Component]:
    """Return the metrics."""
    return list(METRICS)


@helix_kernel.hookimpl
def helix_callbacks() -> list[Component]:
    """Return the callbacks."""
    return list(CALLBACKS)


@helix_kernel.hookimpl
def helix_trainers() -> list[Component]:
    """Return the trainer."""
    return [
        Component(
            name="trainer",
            target="helix_train.trainer:build_trainer",
            config="helix_train.config:TrainerConfig",
            summary="Forward, loss, backward, clip, step; exact resume",
            sections=("model", "data", "loss", "optimizer", "schedule"),
        )
    ]


@helix_kernel.hookimpl
def helix_commands() -> list[Component]:
    """Return the commands."""
    return [
        Component(name="train", target="helix_train.commands:train", summary="Train what a config describes"),
        Component(
            name="eval",
            target="helix_train.commands:evaluate",
            summary="Measure a checkpoint on held-out data",
        ),
        Component(
            name="generate",
            target="helix_train.commands:generate",
            summary="Continue a prompt with a checkpoint's model",
        ),
        Component(
            name="report",
            target="helix_train.inspection:report",
            summary="Write the report of a run as one HTML file",
        ),
        Component(name="runs", target="helix_train.inspection:runs", summary="List runs, or compare them"),
        Component(
            name="diff",
            target="helix_train.inspection:diff",
            summary="Show what two checkpoints, runs or configs differ in",
        ),
    ]
