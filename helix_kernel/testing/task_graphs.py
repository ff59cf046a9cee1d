"""Problems of scheduling, made up from a seed, in the shapes that policies get wrong."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from helix_kernel.scheduling import Device, Task

if TYPE_CHECKING:
    from collections.abc import Callable

Problem = tuple[list[Task], list[Device]]


def problem(shape: str, seed: int) -> Problem:
    """Return tasks and devices for which there is a plan.

    Args:
        shape: One of `SHAPES`.
        seed: Decides durations and all else that is random.
    """
    return SHAPES[shape](random.Random(f"{shape} {seed}"))  # noqa: S311 - made-up problems are no secret


def impossible(what: str) -> Problem:
    """Return tasks and devices for which there is none, `what` being one of `IMPOSSIBLE`."""
    tasks, devices = IMPOSSIBLE[what]
    return list(tasks), list(devices)


def _chain(draw: random.Random) -> Problem:
    tasks = [
        Task(id=f"t{i}", work=draw.uniform(0.5, 2), predecessors=(f"t{i - 1}",) if i else ())
        for i in range(8)
    ]
    return _shuffled(tasks, draw), _devices(3)


def _fork_and_join(draw: random.Random) -> Problem:
    middle = [Task(id=f"m{i}", work=draw.uniform(0.5, 3), predecessors=("first",)) for i in range(7)]
    last = Task(id="last", predecessors=tuple(task.id for task in middle))
    return _shuffled([Task(id="first"), *middle, last], draw), _devices(3)


def _diamonds(draw: random.Random) -> Problem:
    tasks = [Task(id="top0", work=draw.uniform(0.5, 2))]
    for i in range(4):
        sides = (f"left{i}", f"right{i}")
        tasks += [Task(id=side, work=draw.uniform(0.1, 4), predecessors=(f"top{i}",)) for side in sides]
        tasks.append(Task(id=f"top{i + 1}", work=draw.uniform(0.5, 2), predecessors=sides))
    return _shuffled(tasks, draw), _devices(2)


def _wide(draw: random.Random) -> Problem:
    return [Task(id=f"t{i}", work=draw.uniform(0.1, 5)) for i in range(24)], _devices(4)


def _random_graph(draw: random.Random) -> Problem:
    tasks = [
        Task(id=f"t{i}", work=draw.uniform(0, 3), predecessors=_earlier(draw, i, 0.25)) for i in range(16)
    ]
    return _shuffled(tasks, draw), _devices(3)


def _releases(draw: random.Random) -> Problem:
    tasks = [
        Task(
            id=f"t{i}", work=draw.uniform(0.5, 2), release=draw.uniform(0, 8), predecessors=_earlier(draw, i)
        )
        for i in range(10)
    ]
    return _shuffled(tasks, draw), _devices(2)


def _eligibility(draw: random.Random) -> Problem:
    devices = _devices(4)
    tasks = [
        Task(
            id=f"t{i}",
            work=draw.uniform(0.5, 2),
            devices=tuple(device.id for device in draw.sample(devices, draw.randint(1, 2))),
            predecessors=_earlier(draw, i),
        )
        for i in range(12)
    ]
    return _shuffled(tasks, draw), devices


def _capacities(draw: random.Random) -> Problem:
    devices = [Device(id=f"d{i}", capacity=capacity) for i, capacity in enumerate((1.0, 2.5, 4.0))]
    tasks = [
        Task(id=f"t{i}", work=draw.uniform(0.5, 3), demand=draw.choice([0, 0.5, 1, 1.5, 2.5, 4]))
        for i in range(16)
    ]
    return tasks, devices


def _moments(draw: random.Random) -> Problem:
    """Tasks that take no time between others that do."""
    tasks = [
        Task(id=f"t{i}", work=draw.choice([0, 0, draw.uniform(0.5, 2)]), predecessors=_earlier(draw, i, 0.3))
        for i in range(12)
    ]
    return _shuffled(tasks, draw), _devices(2)


def _one_device(draw: random.Random) -> Problem:
    return _random_graph(draw)[0], _devices(1)


def _more_devices_than_tasks(draw: random.Random) -> Problem:
    return [Task(id=f"t{i}", work=draw.uniform(0.5, 2)) for i in range(3)], _devices(9)


def _unlike_devices(draw: random.Random) -> Problem:
    """Devices of different speeds, and tasks that take another time on each."""
    devices = [Device(id=f"d{i}", speed=speed) for i, speed in enumerate((0.5, 1.0, 4.0))]
    tasks = [
        Task(
            id=f"t{i}",
            work=draw.uniform(0.5, 2),
            durations={} if i % 2 else {device.id: draw.uniform(0.5, 2) for device in devices},
            predecessors=_earlier(draw, i),
        )
        for i in range(12)
    ]
    return _shuffled(tasks, draw), devices


SHAPES: dict[str, Callable[[random.Random], Problem]] = {
    "chain": _chain,
    "fork-and-join": _fork_and_join,
    "diamonds": _diamonds,
    "wide": _wide,
    "random-graph": _random_graph,
    "releases": _releases,
    "eligibility": _eligibility,
    "capacities": _capacities,
    "moments": _moments,
    "one-device": _one_device,
    "more-devices-than-tasks": _more_devices_than_tasks,
    "unlike-devices": _unlike_devices,
}

IMPOSSIBLE: dict[str, Problem] = {
    "no device": ([Task(id="a")], []),
    "no device of that id": ([Task(id="a", devices=("tpu",))], [Device(id="cpu")]),
    "demand above every capacity": ([Task(id="a", demand=3)], [Device(id="cpu", capacity=2)]),
    "demand above that of the devices it may use": (
        [Task(id="a", demand=3, devices=("small",))],
        [Device(id="small", capacity=2), Device(id="large", capacity=4)],
    ),
    "a circle": (
        [Task(id="a", predecessors=("b",)), Task(id="b", predecessors=("a",)), Task(id="c")],
        [Device(id="cpu")],
    ),
    "a missing predecessor": ([Task(id="a", predecessors=("b",))], [Device(id="cpu")]),
    "one id twice": ([Task(id="a"), Task(id="a", work=2)], [Device(id="cpu")]),
}


def _devices(count: int) -> list[Device]:
    return [Device(id=f"d{i}") for i in range(count)]


def _earlier(draw: random.Random, count: int, share: float = 0.15) -> tuple[str, ...]:
    return tuple(f"t{i}" for i in range(count) if draw.random() < share)


def _shuffled(tasks: list[Task], draw: random.Random) -> list[Task]:
    """Return the tasks in an order that tells nothing of which waits for which."""
    return draw.sample(tasks, len(tasks))
