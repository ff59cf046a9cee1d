"""Puts the stages of a pipeline on devices: each where a scheduling policy sends it, by measured seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel import default_kernel
from helix_kernel.errors import UnschedulableError
from helix_kernel.scheduling import Device, Schedule, Task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from helix_kernel import Kernel


@attrs.frozen(kw_only=True)
class Stage:
    """A part of a pipeline, such as one encoder.

    Args:
        name: Tells it from others.
        seconds: What it takes on each device that it can run on.
        n_bytes: What it holds there while it runs.
        after: Names of the stages whose results it needs.
    """

    name: str
    seconds: Mapping[str, float]
    n_bytes: int = 0
    after: tuple[str, ...] = ()


def place(
    stages: Sequence[Stage],
    memory: Mapping[str, int],
    *,
    policy: Mapping[str, Any] | str = "earliest-finish",
    kernel: Kernel | None = None,
    seed: int = 0,
) -> Schedule:
    """Return where and when each stage of one batch runs.

    Args:
        stages: The pipeline.
        memory: Bytes of each device; their stages that run at one time hold no more together.
        policy: A component of kind ``scheduling_policy``: its table, or its name.
        kernel: Finds it; the default kernel if None.
        seed: Decides what the policy leaves to chance.

    Raises:
        UnschedulableError: A stage fits no device, or the policy's plan is not valid.
    """
    devices = [Device(id=name, capacity=float(n_bytes)) for name, n_bytes in memory.items()]
    tasks = [
        Task(
            id=stage.name,
            durations=dict(stage.seconds),
            devices=tuple(name for name in stage.seconds if name in memory),
            predecessors=stage.after,
            demand=float(stage.n_bytes),
        )
        for stage in stages
    ]
    table: Any = {"use": policy} if isinstance(policy, str) else policy
    plan: Schedule = (
        (kernel or default_kernel()).build("scheduling_policy", table).plan(tasks, devices, seed=seed)
    )
    if faults := plan.violations(tasks, devices):
        raise UnschedulableError(f"policy {table['use']!r} made a plan that is not valid: {faults[0]}")
    return plan


def memory_of_devices(kernel: Kernel | None = None) -> dict[str, int]:
    """Return the bytes that each device still has, as the backends that are at work here tell: by device.

    The names are those of ``torch.device``: ``cpu``, ``cuda:0`` and so on.
    """
    kernel = kernel or default_kernel()
    found: dict[str, int] = {}
    for component in kernel.components("backend"):
        backend = kernel.build("backend", {"use": component.qualified})
        if not backend.probe().available or backend.device_type == "any":
            continue
        index = 0
        while (memory := backend.memory(index)) is not None:
            name = backend.device_type if backend.device_type == "cpu" else f"{backend.device_type}:{index}"
            found[name] = max(found.get(name, 0), memory.available)
            index += 1
            if name == "cpu":
                break
    return found
