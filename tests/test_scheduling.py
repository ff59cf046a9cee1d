"""The records of scheduling, and the check of plans against one that steps through time."""

from __future__ import annotations

import random

import attrs
import pytest

from helix_kernel.errors import ArgumentError, InputError, UnschedulableError
from helix_kernel.scheduling import Assignment, Device, Schedule, Task, check_schedulable, serial_schedule

CPU, GPU = Device(id="cpu", capacity=2), Device(id="gpu", speed=4)
LOAD = Task(id="load", work=2, devices=("cpu",))
TRAIN = Task(id="train", work=8, predecessors=("load",), release=1)
TASKS, DEVICES = [LOAD, TRAIN], [CPU, GPU]
PLAN = Schedule(
    [
        Assignment(task="load", device="cpu", start=0, end=2),
        Assignment(task="train", device="gpu", start=2, end=4),
    ]
)


def changed(name, **values):
    return Schedule([attrs.evolve(a, **values) if a.task == name else a for a in PLAN.assignments])


def test_a_valid_plan_has_no_violations_and_lasts_until_its_last_task_has_ended():
    assert PLAN.violations(TASKS, DEVICES) == []
    assert PLAN.makespan == 4
    assert Schedule(()).makespan == 0
    assert Schedule(()).violations([], DEVICES) == []


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (Schedule(PLAN.assignments[:1]), "task 'train' is never run"),
        (Schedule(PLAN.assignments + PLAN.assignments[:1]), "task 'load' is run 2 times"),
        (changed("train", task="sing"), "task 'sing' is run, and there is none of that id"),
        (changed("train", device="tpu"), "task 'train' is on 'tpu', and there is no such device"),
        (changed("load", start=-1, end=1), "it runs from -1 to 1"),
        (changed("load", start=2, end=0), "it runs from 2 to 0"),
        (changed("load", end=float("nan")), "it runs from 0 to nan"),
        (changed("train", start=0.5, end=2.5), "it starts at 0.5 and is released at 1"),
        (
            changed("train", start=1.5, end=3.5),
            "'train' starts at 1.5, and 'load', for which it waits, ends at 2",
        ),
        (
            changed("load", device="gpu", end=0.5),
            "it may not run there: it may run on ['cpu'], given is 'gpu'",
        ),
        (changed("train", end=3), "it is given 1 seconds and takes 2"),
    ],
)
def test_each_fault_is_said(plan, says):
    assert any(says in fault for fault in plan.violations(TASKS, DEVICES)), plan.violations(TASKS, DEVICES)


def test_a_device_that_is_overbooked_is_said_with_when_and_by_whom():
    tasks = [Task(id=name, demand=demand) for name, demand in [("a", 1), ("b", 1), ("c", 0.5)]]
    together = Schedule([Assignment(task=t.id, device="cpu", start=0, end=1) for t in tasks])
    (fault,) = together.violations(tasks, [CPU])
    assert fault == "device 'cpu' has 2 and is asked for 2.5 at 0, by 'a', 'b', 'c'"
    assert Schedule(together.assignments[:2]).violations(tasks[:2], [CPU]) == []


def test_a_task_that_takes_no_time_needs_no_room_and_one_may_start_when_another_ends():
    tasks = [Task(id="a"), Task(id="b"), Task(id="mark", work=0)]
    plan = Schedule(
        [
            Assignment(task="a", device="one", start=0, end=1),
            Assignment(task="b", device="one", start=1, end=2),
            Assignment(task="mark", device="one", start=0.5, end=0.5),
        ]
    )
    assert plan.violations(tasks, [Device(id="one")]) == []


def test_the_check_agrees_with_a_simulation_on_random_plans():
    """On a grid of whole seconds, where stepping through time sees everything."""
    n_valid = 0
    for seed in range(600):
        tasks, devices, plan = random_plan(random.Random(seed))
        valid = simulated(tasks, devices, plan)
        assert (plan.violations(tasks, devices) == []) == valid, (seed, plan, tasks)
        n_valid += valid
    assert 50 < n_valid < 550


def random_plan(draw):
    """A plan that is valid or has one assignment moved, or a task that demands or waits for more."""
    devices = [Device(id=f"d{i}", capacity=draw.randint(1, 3)) for i in range(2)]
    tasks = [
        Task(
            id=f"t{i}",
            work=draw.randint(1, 3),
            release=draw.randint(0, 2),
            demand=1,
            devices=draw.choice([None, ("d0",), ("d0", "d1")]),
            predecessors=tuple(f"t{j}" for j in range(i) if draw.random() < 0.3),
        )
        for i in range(4)
    ]
    plan = serial_schedule(tasks, devices)
    if draw.random() < 0.8:
        victim, shift = draw.choice(plan.assignments), draw.randint(-3, 3)
        moved = attrs.evolve(
            victim,
            device=draw.choice(devices).id,
            start=victim.start + shift,
            end=victim.end + shift,
        )
        plan = Schedule([moved if a is victim else a for a in plan.assignments])
    return tasks, devices, plan


def simulated(tasks, devices, plan):
    known = {task.id: task for task in tasks}
    at = {a.task: a for a in plan.assignments}
    for second in range(-4, 40):
        for device in devices:
            running = [
                known[a.task] for a in at.values() if a.device == device.id and a.start <= second < a.end
            ]
            if sum(task.demand for task in running) > device.capacity:
                return False
            for task in running:
                early = second < task.release or second < 0
                waits = any(at[name].end > second for name in task.predecessors)
                banned = task.devices is not None and device.id not in task.devices
                if early or waits or banned:
                    return False
    return True


@pytest.mark.parametrize(
    ("tasks", "devices", "says"),
    [
        ([LOAD, LOAD], DEVICES, "tasks: the id 'load' is given twice"),
        ([LOAD], [CPU, CPU], "devices: the id 'cpu' is given twice"),
        ([TRAIN], DEVICES, "task 'train' waits for 'load', and there is no such task"),
        ([LOAD], [GPU], "task 'load' fits no device: it may run on ['cpu'], given is 'gpu'"),
        ([LOAD], [], "task 'load' fits no device: there are no devices"),
        ([Task(id="a", demand=5)], DEVICES, "it demands 5, and what it may run on has 2 at most"),
        (
            [Task(id="a", predecessors=("b",)), Task(id="b", predecessors=("a",))],
            DEVICES,
            "tasks wait for one another: 'a' -> 'b' -> 'a'",
        ),
    ],
)
def test_what_no_plan_can_meet_is_said(tasks, devices, says):
    with pytest.raises(UnschedulableError) as caught:
        check_schedulable(tasks, devices)
    assert says in str(caught.value)
    assert isinstance(caught.value, InputError)


def test_tasks_come_after_what_they_wait_for():
    tasks = [Task(id=f"t{i}", predecessors=(f"t{i + 1}",) if i < 9 else ()) for i in range(10)]
    assert [task.id for task in check_schedulable(tasks, [CPU])] == [f"t{9 - i}" for i in range(10)]


def test_durations_on_single_devices_stand_before_work_and_speed():
    task = Task(id="a", work=8, durations={"gpu": 3})
    assert (task.duration_on(GPU), task.duration_on(Device(id="other", speed=4))) == (3, 2)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Task(id="a", work=-1), "task 'a': work is -1"),
        (lambda: Task(id="a", release=float("nan")), "release is nan"),
        (lambda: Task(id="a", demand=float("inf")), "demand is inf"),
        (lambda: Task(id="a", durations={"gpu": -2}), r"durations\['gpu'\] is -2"),
        (lambda: Device(id="d", capacity=-1), "device 'd': capacity is -1"),
        (lambda: Device(id="d", speed=0), "speed is 0"),
    ],
)
def test_numbers_out_of_range_are_refused(make, says):
    with pytest.raises(ArgumentError, match=says):
        make()
