"""What a scheduling policy plans: tasks on devices, and a check of plans that trusts no policy."""

from __future__ import annotations

from collections import Counter
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Protocol

import attrs

from helix_kernel.errors import ArgumentError, UnschedulableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_SLACK = 1e-9
"""Rounding that is forgiven, relative to the makespan or the capacity."""


def _assignments(value: Iterable[Assignment]) -> tuple[Assignment, ...]:
    return tuple(value)


@attrs.frozen(kw_only=True)
class Task:
    """A piece of work that runs on one device from its start to its end without a break.

    Args:
        id: Tells it from others.
        work: Seconds that it takes on a device of speed 1, at least 0.
        durations: Seconds on single devices, by their ids, where `work` and the speed do not tell.
        release: Seconds from the plan's begin before which it may not start, at least 0.
        predecessors: Ids of the tasks that must have ended before it starts.
        devices: Ids of the devices that it may run on; None for all.
        demand: Share of a device's capacity that it takes while it runs, in the unit of the capacity.

    Raises:
        ArgumentError: A number is negative or NaN.
    """

    id: str
    work: float = 1.0
    durations: Mapping[str, float] = attrs.field(factory=dict)
    release: float = 0.0
    predecessors: tuple[str, ...] = ()
    devices: tuple[str, ...] | None = None
    demand: float = 1.0

    def __attrs_post_init__(self) -> None:
        numbers = {"work": self.work, "release": self.release, "demand": self.demand}
        numbers |= {f"durations[{device!r}]": seconds for device, seconds in self.durations.items()}
        for name, number in numbers.items():
            if not 0 <= number < float("inf"):
                raise ArgumentError(f"task {self.id!r}: {name} is {number!r}, allowed is >= 0 and finite")

    def duration_on(self, device: Device) -> float:
        """Return the seconds that it takes on a device."""
        return self.durations.get(device.id, self.work / device.speed)

    def fits(self, device: Device) -> bool:
        """Whether it may run on a device, and needs no more than the device has."""
        return (self.devices is None or device.id in self.devices) and self.demand <= device.capacity


@attrs.frozen(kw_only=True)
class Device:
    """What tasks run on, as many at a time as their demands leave room for.

    Args:
        id: Tells it from others.
        capacity: What the tasks that run at one time may demand together, such as slots or GiB.
        speed: Work that it does in a second, above 0.

    Raises:
        ArgumentError: A number is out of range.
    """

    id: str
    capacity: float = 1.0
    speed: float = 1.0

    def __attrs_post_init__(self) -> None:
        if not self.capacity >= 0:
            raise ArgumentError(f"device {self.id!r}: capacity is {self.capacity!r}, allowed is >= 0")
        if not self.speed > 0:
            raise ArgumentError(f"device {self.id!r}: speed is {self.speed!r}, allowed is > 0")


@attrs.frozen(kw_only=True)
class Assignment:
    """Where and when a task runs.

    Args:
        task: Its id.
        device: The device's id.
        start: Seconds from the plan's begin.
        end: Likewise; a task that takes no time ends when it starts.
    """

    task: str
    device: str
    start: float
    end: float


@attrs.frozen
class Schedule:
    """A plan: each task's place and time.

    Args:
        assignments: One for each task, in any order.
    """

    assignments: tuple[Assignment, ...] = attrs.field(converter=_assignments)

    @property
    def makespan(self) -> float:
        """Seconds until the last task has ended; 0 where there is none."""
        return max((assignment.end for assignment in self.assignments), default=0.0)

    def violations(self, tasks: Sequence[Task], devices: Sequence[Device]) -> list[str]:
        """Return what is wrong with the plan, a line for each fault; nothing where it is valid.

        Checked is that each task comes once, on a device that it may run on, for as long as it takes there;
        not before it is released nor before its predecessors have ended; and that no device is asked for
        more than its capacity at any time. Nothing that a policy computed is used but the assignments.
        """
        known = {task.id: task for task in tasks}
        places = {device.id: device for device in devices}
        slack = _SLACK * max(1.0, self.makespan)
        counts = Counter(assignment.task for assignment in self.assignments)
        found = [f"task {name!r} is never run" for name in known if name not in counts]
        found += [f"task {name!r} is run {n} times" for name, n in counts.items() if n > 1 and name in known]
        ends: dict[str, float] = {}
        for a in self.assignments:
            ends[a.task] = max(a.end, ends.get(a.task, a.end))
        for assignment in self.assignments:
            task, device = known.get(assignment.task), places.get(assignment.device)
            if task is None:
                found.append(f"task {assignment.task!r} is run, and there is none of that id")
            elif device is None:
                found.append(f"task {task.id!r} is on {assignment.device!r}, and there is no such device")
            else:
                found += _wrong(assignment, task, device, slack)
                found += _too_early(assignment, task, ends, slack)
        for device in devices:
            own = [a for a in self.assignments if a.device == device.id and a.task in known]
            found += _overbooked(device, own, known, slack)
        return found


class SchedulingPolicy(Protocol):
    """What a component of kind ``scheduling_policy`` is."""

    def plan(self, tasks: Sequence[Task], devices: Sequence[Device], *, seed: int) -> Schedule:
        """Return a valid plan that depends on the arguments alone.

        Raises:
            UnschedulableError: There is none; see `check_schedulable`.
        """
        ...


def check_schedulable(tasks: Sequence[Task], devices: Sequence[Device]) -> list[Task]:
    """Return the tasks in an order in which each comes after its predecessors, the same every time.

    Raises:
        UnschedulableError: An id is given twice, a predecessor is missing, tasks wait for one another, or
            no device may run a task.
    """
    for what, ids in (("tasks", [t.id for t in tasks]), ("devices", [d.id for d in devices])):
        twice = [name for name, n in Counter(ids).items() if n > 1]
        if twice:
            raise UnschedulableError(f"{what}: the id {twice[0]!r} is given twice; ids tell them apart")
    known = {task.id for task in tasks}
    for task in tasks:
        missing = [name for name in task.predecessors if name not in known]
        if missing:
            raise UnschedulableError(f"task {task.id!r} waits for {missing[0]!r}, and there is no such task")
        if not any(task.fits(device) for device in devices):
            raise UnschedulableError(f"task {task.id!r} fits no device: {_why_not(task, devices)}")
    return _in_order(tasks)


def serial_schedule(tasks: Sequence[Task], devices: Sequence[Device]) -> Schedule:
    """Return the plan that runs one task at a time, each where it is quickest: what a policy must not exceed.

    Raises:
        UnschedulableError: There is no valid plan.
    """
    now, assignments = 0.0, []
    for task in check_schedulable(tasks, devices):
        device = min((d for d in devices if task.fits(d)), key=task.duration_on)
        start = max(now, task.release)
        now = start + task.duration_on(device)
        assignments.append(Assignment(task=task.id, device=device.id, start=start, end=now))
    return Schedule(assignments)


def _wrong(assignment: Assignment, task: Task, device: Device, slack: float) -> list[str]:
    """Return what is wrong with an assignment by itself."""
    where = f"task {task.id!r} on {device.id!r}"
    found = []
    if not 0 <= assignment.start <= assignment.end < float("inf"):
        found.append(f"{where}: it runs from {assignment.start:g} to {assignment.end:g}")
    if assignment.start < task.release - slack:
        found.append(f"{where}: it starts at {assignment.start:g} and is released at {task.release:g}")
    if not task.fits(device):
        found.append(f"{where}: it may not run there: {_why_not(task, [device])}")
    takes, needs = assignment.end - assignment.start, task.duration_on(device)
    if abs(takes - needs) > slack:
        found.append(f"{where}: it is given {takes:g} seconds and takes {needs:g}")
    return found


def _too_early(assignment: Assignment, task: Task, ends: Mapping[str, float], slack: float) -> list[str]:
    return [
        f"task {task.id!r} starts at {assignment.start:g}, and {name!r}, for which it waits, "
        f"ends at {ends[name]:g}"
        for name in task.predecessors
        if name in ends and assignment.start < ends[name] - slack
    ]


def _overbooked(
    device: Device, assignments: Sequence[Assignment], tasks: Mapping[str, Task], slack: float
) -> list[str]:
    """Return where more is demanded of a device than it has: demand changes at starts only upwards."""
    room = device.capacity * (1 + _SLACK)
    for assignment in sorted(assignments, key=lambda a: a.start):
        now = assignment.start + slack
        running = [a.task for a in assignments if a.start <= now < a.end]
        demand = sum(tasks[name].demand for name in running)
        if demand > room:
            who = ", ".join(map(repr, running))
            asked = f"is asked for {demand:g} at {assignment.start:g}, by {who}"
            return [f"device {device.id!r} has {device.capacity:g} and {asked}"]
    return []


def _why_not(task: Task, devices: Sequence[Device]) -> str:
    if not devices:
        return "there are no devices"
    allowed = [device for device in devices if task.devices is None or device.id in task.devices]
    if not allowed:
        given = ", ".join(repr(device.id) for device in devices)
        return f"it may run on {list(task.devices or ())!r}, given is {given}"
    most = max(device.capacity for device in allowed)
    return f"it demands {task.demand:g}, and what it may run on has {most:g} at most"


def _in_order(tasks: Sequence[Task]) -> list[Task]:
    known = {task.id: task for task in tasks}
    order = TopologicalSorter({task.id: task.predecessors for task in tasks})
    try:
        return [known[name] for name in order.static_order()]
    except CycleError as error:
        circle = " -> ".join(map(repr, error.args[1]))
        raise UnschedulableError(f"tasks wait for one another: {circle}") from None
