"""Measures a few steps of a run and foresees the rest, before anything long begins."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from typing import TYPE_CHECKING

import attrs
import torch

from helix_train.checkpoint_size import checkpoint_size
from helix_train.failures import disk_free, told_failures
from helix_train.report.numbers import amount, duration

if TYPE_CHECKING:
    from helix_train.trainer import Trainer


@attrs.frozen(kw_only=True)
class Forecast:
    """What a run will take.

    Args:
        parameters: How many the model has, all of them.
        trainable: How many of them are trained.
        tokens_per_step: Tokens of a step.
        flops_per_step: Floating-point operations of a step, as `helix_train.speed.count_flops` counts them.
        seconds_per_step: Median time of a step.
        hours: Time of all steps that are left, without validations and checkpoints.
        peak_memory: The most bytes that the process has held so far: on an accelerator of its memory, else of
            the machine's.
        checkpoint_size: Bytes of a checkpoint.
        checkpoints: Bytes of all that stay on disk at once, one that is being written among them.
        disk_free: Bytes that the disk has free for them.
    """

    parameters: int
    trainable: int
    tokens_per_step: int
    flops_per_step: int
    seconds_per_step: float
    hours: float
    peak_memory: int
    checkpoint_size: int
    checkpoints: int
    disk_free: int

    def told(self) -> dict[str, str]:
        """Return it for people, with units."""
        return {
            "parameters": f"{self.parameters:,} ({self.trainable:,} trained)",
            "a step": f"{self.tokens_per_step:,} tokens, {amount(self.flops_per_step, 'FLOP')}, "
            f"{duration(self.seconds_per_step)}",
            "all steps": duration(self.hours * 3600),
            "peak memory": amount(self.peak_memory, "B"),
            "checkpoint": f"{amount(self.checkpoint_size, 'B')}, {amount(self.checkpoints, 'B')} for all",
            "disk free": amount(self.disk_free, "B"),
        }

    def warnings(self) -> list[str]:
        """Return what will go wrong, a line each."""
        if self.checkpoints <= self.disk_free:
            return []
        full = (
            f"the disk will be full: checkpoints take {self.checkpoints:,} bytes and {self.disk_free:,} are "
            "free; lower trainer.keep, or choose another trainer.out"
        )
        return [full]


def dry_run(trainer: Trainer, *, steps: int = 5) -> Forecast:
    """Take a few steps of a run, as it would begin, and write nothing.

    The trainer has been trained a little by it, so it is of no other use afterwards.

    Args:
        trainer: As built from the config.
        steps: How many, at least 2: the first warms up and is not counted.

    Raises:
        HelixError: A step takes more memory than the device has.
    """
    with told_failures():
        flops = trainer.count_flops()
        trainer.model.train()
        seconds = statistics.median([_timed_step(trainer, number) for number in range(steps)][1:])
    size = checkpoint_size(trainer.state(), trainer.model, trainer.optimizer)
    left = max(0, trainer.steps - (trainer.start.step if trainer.start else 0))
    parameters = list(trainer.model.parameters())
    return Forecast(
        parameters=sum(parameter.numel() for parameter in parameters),
        trainable=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        tokens_per_step=trainer.tokens_per_step,
        flops_per_step=flops,
        seconds_per_step=seconds,
        hours=seconds * left / 3600,
        peak_memory=_peak_memory(trainer.ranks.device),
        checkpoint_size=size,
        checkpoints=size * _kept_at_once(trainer),
        disk_free=disk_free(trainer.out),
    )


def _timed_step(trainer: Trainer, number: int) -> float:
    begun = time.perf_counter()
    trainer.try_loss(number)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad(set_to_none=True)
    if trainer.ranks.device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - begun


def _kept_at_once(trainer: Trainer) -> int:
    options = trainer.options
    round_ones = options.steps // options.keep_every if options.keep_every else 0
    return options.keep + options.keep_best + round_ones + 1


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
