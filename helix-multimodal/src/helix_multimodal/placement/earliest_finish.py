"""The scheduling policy `earliest-finish`: the most urgent task next, where it ends first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helix_kernel.scheduling import Assignment, Schedule, check_schedulable, serial_schedule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from helix_kernel.scheduling import Device, Task


class EarliestFinish:
    """Heterogeneous earliest finish time: Topcuoglu, Hariri & Wu 2002, section 4.1, with capacities.

    A task is the more urgent, the longer the way from it to the end, at mean durations (the upward rank,
    equation 5, without costs of communication). Each takes the device on which it ends first, in the first
    gap that has room for it. Where one task at a time would be quicker, that is the plan.
    """

    def plan(self, tasks: Sequence[Task], devices: Sequence[Device], *, seed: int) -> Schedule:  # noqa: ARG002 - nothing is left to chance
        """Return a valid plan.

        Raises:
            UnschedulableError: There is none.
        """
        order = check_schedulable(tasks, devices)
        ranks = _ranks(order, devices)
        done: dict[str, Assignment] = {}
        demands = {task.id: task.demand for task in order}
        waiting = {task.id: task for task in order}
        while waiting:
            ready = [task for task in waiting.values() if all(name in done for name in task.predecessors)]
            task = min(ready, key=lambda one: (-ranks[one.id], one.id))
            done[task.id] = min(
                (_earliest(task, device, done, demands) for device in devices if task.fits(device)),
                key=lambda one: (one.end, one.device),
            )
            del waiting[task.id]
        plan, serial = Schedule(done.values()), serial_schedule(tasks, devices)
        return plan if plan.makespan <= serial.makespan else serial


def _ranks(order: Sequence[Task], devices: Sequence[Device]) -> dict[str, float]:
    """Return the seconds from each task's start to the end of what follows it, at mean durations."""
    after: dict[str, list[str]] = {task.id: [] for task in order}
    for task in order:
        for name in task.predecessors:
            after[name].append(task.id)
    ranks: dict[str, float] = {}
    for task in reversed(order):
        durations = [task.duration_on(device) for device in devices if task.fits(device)]
        rest = max((ranks[name] for name in after[task.id]), default=0.0)
        ranks[task.id] = sum(durations) / len(durations) + rest
    return ranks


def _earliest(
    task: Task, device: Device, done: dict[str, Assignment], demands: dict[str, float]
) -> Assignment:
    """Return the first place of a task on a device, after its predecessors, where there is room for it."""
    ready = max([task.release, *(done[name].end for name in task.predecessors)])
    own = [one for one in done.values() if one.device == device.id]
    seconds = task.duration_on(device)
    room = device.capacity - task.demand
    for start in sorted({ready, *(one.end for one in own if one.end > ready)}):
        end = start + seconds
        # What runs changes upwards at starts alone, so that these are the times to look at.
        times = [start, *(one.start for one in own if start < one.start < end)]
        if all(_demanded(own, demands, now) <= room for now in times):
            return Assignment(task=task.id, device=device.id, start=start, end=end)
    raise AssertionError("after the last task's end there is room")  # as the task fits the device


def _demanded(own: Sequence[Assignment], demands: dict[str, float], now: float) -> float:
    return sum(demands[one.task] for one in own if one.start <= now < one.end)
