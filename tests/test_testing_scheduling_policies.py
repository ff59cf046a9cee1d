"""The suite of scheduling policies passes a correct policy and catches each of these faults."""

from __future__ import annotations

import random

import attrs
import pytest

from helix_kernel.errors import ArgumentError, UnschedulableError
from helix_kernel.scheduling import Assignment, Schedule, check_schedulable, serial_schedule
from helix_kernel.testing.faults import caught_by
from helix_kernel.testing.scheduling_policies import SchedulingPolicySuite


class Greedy:
    """Each task, in order, at the first moment at which a device has room for it. Faults break one thing."""

    def plan(self, tasks, devices, *, seed):
        done = []
        for task in self.order(tasks, devices, seed):
            options = [self.place(task, device, done) for device in devices if self.fits(task, device)]
            done.append(min(options, key=lambda found: found.end))
        return Schedule(done)

    def order(self, tasks, devices, seed):
        return check_schedulable(tasks, devices)

    def fits(self, task, device):
        return task.fits(device)

    def place(self, task, device, done):
        ready = max([self.release(task), *self.ends_before(task, done)])
        here = [(a, self.demands[a.task]) for a in done if a.device == device.id]
        for start in sorted({ready, *(a.end for a, _ in here if a.end > ready)}):
            end = start + task.duration_on(device)
            if self.has_room(task, device, start, end, here):
                self.demands[task.id] = task.demand
                return Assignment(task=task.id, device=device.id, start=start, end=end)
        raise AssertionError("after the last end there is room")

    def release(self, task):
        return task.release

    def ends_before(self, task, done):
        return [a.end for a in done if a.task in task.predecessors]

    def has_room(self, task, device, start, end, here):
        moments = [start, *(a.start for a, _ in here if start < a.start < end)]
        return all(
            task.demand + sum(d for a, d in here if a.start <= now < a.end) <= device.capacity
            for now in moments
        )

    def __init__(self):
        self.demands = {}


class TestGreedy(SchedulingPolicySuite):
    def make_policy(self):
        return Greedy()


class TestSerial(SchedulingPolicySuite):
    """The bound itself is a policy, too."""

    def make_policy(self):
        class Serial:
            def plan(self, tasks, devices, *, seed):
                return serial_schedule(tasks, devices)

        return Serial()


class BreaksPrecedence(Greedy):
    def ends_before(self, task, done):
        return super().ends_before(task, done)[:1]


class Overbooks(Greedy):
    def has_room(self, task, device, start, end, here):
        return sum(a.start <= start < a.end for a, _ in here) < device.capacity


class IgnoresRelease(Greedy):
    def release(self, task):
        return 0.0


class IgnoresEligibility(Greedy):
    def fits(self, task, device):
        return task.demand <= device.capacity


class DropsATask(Greedy):
    def plan(self, tasks, devices, *, seed):
        return Schedule(super().plan(tasks, devices, seed=seed).assignments[1:])


class RunsOneTwice(Greedy):
    def plan(self, tasks, devices, *, seed):
        done = super().plan(tasks, devices, seed=seed)
        late = [attrs.evolve(a, start=a.start + 99, end=a.end + 99) for a in done.assignments[:1]]
        return Schedule([*done.assignments, *late])


class CutsWorkShort(Greedy):
    def place(self, task, device, done):
        whole = super().place(task, device, done)
        return attrs.evolve(whole, end=whole.start + min(2.0, whole.end - whole.start))


class TrustsTheOrderGiven(Greedy):
    def order(self, tasks, devices, seed):
        check_schedulable(tasks, devices)
        return tasks


class ThrowsDice(Greedy):
    def plan(self, tasks, devices, *, seed):
        late = random.random()
        found = super().plan(tasks, devices, seed=seed).assignments
        return Schedule([attrs.evolve(a, start=a.start + late, end=a.end + late) for a in found])


class RemembersTheLastPlan(Greedy):
    n_plans = 0

    def plan(self, tasks, devices, *, seed):
        self.n_plans += 1
        found = super().plan(tasks, devices, seed=seed).assignments
        return Schedule(found[:: 1 if self.n_plans % 2 else -1])


class SortsTheInput(Greedy):
    def order(self, tasks, devices, seed):
        tasks.sort(key=lambda task: task.id)
        return check_schedulable(tasks, devices)


class Dawdles(Greedy):
    def plan(self, tasks, devices, *, seed):
        found = super().plan(tasks, devices, seed=seed).assignments
        return Schedule([attrs.evolve(a, start=a.start + 99, end=a.end + 99) for a in found])


class NeedsATask(Greedy):
    def plan(self, tasks, devices, *, seed):
        first = min(task.release for task in tasks)
        assert first >= 0
        return super().plan(tasks, devices, seed=seed)


class PlansTheImpossible(Greedy):
    def order(self, tasks, devices, seed):
        possible = [task for task in tasks if any(task.fits(device) for device in devices)]
        return check_schedulable(possible, devices)


class RaisesAnythingElse(Greedy):
    def order(self, tasks, devices, seed):
        try:
            return super().order(tasks, devices, seed)
        except UnschedulableError as error:
            raise ArgumentError("cannot") from error


FAULTS = [
    (BreaksPrecedence, "test_plans_are_valid", "for which it waits, ends at"),
    (Overbooks, "test_plans_are_valid", r"device '\w+' has \S+ and is asked for"),
    (IgnoresRelease, "test_plans_are_valid", "and is released at"),
    (IgnoresEligibility, "test_plans_are_valid", "it may not run there"),
    (DropsATask, "test_plans_are_valid", "is never run"),
    (RunsOneTwice, "test_plans_are_valid", "is run 2 times"),
    (CutsWorkShort, "test_plans_are_valid", "it is given 2 seconds and takes"),
    (TrustsTheOrderGiven, "test_the_order_of_the_input_does_not_matter_to_validity", "for which it waits"),
    (ThrowsDice, "test_one_seed_gives_one_plan", "differ; draw from random.Random"),
    (RemembersTheLastPlan, "test_one_seed_gives_one_plan", "nothing between plans"),
    (SortsTheInput, "test_inputs_are_not_changed", "changed its lists"),
    (Dawdles, "test_no_plan_takes_longer_than_one_task_at_a_time", "seconds, one task at a time"),
    (
        NeedsATask,
        "test_nothing_to_do_is_an_empty_plan",
        "on 4 devices, the policy raises ValueError",
    ),
    (PlansTheImpossible, "test_what_no_plan_can_meet_is_refused", "raise UnschedulableError"),
    (RaisesAnythingElse, "test_what_no_plan_can_meet_is_refused", "raises ArgumentError: cannot"),
]


@pytest.mark.parametrize(("fault", "case", "says"), FAULTS, ids=[fault.__name__ for fault, _, _ in FAULTS])
def test_a_fault_is_caught_by_the_case_meant_for_it(tmp_path, fault, case, says):
    suite = type("Suite", (SchedulingPolicySuite,), {"make_policy": lambda self: fault()})
    right = type("Suite", (SchedulingPolicySuite,), {"make_policy": lambda self: Greedy()})
    caught_by(suite, case, says, right=right, tmp_path=tmp_path)
