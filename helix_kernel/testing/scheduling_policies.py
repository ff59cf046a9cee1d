"""The conformance suite of scheduling policies: what every policy must do, whoever wrote it.

Subclass `SchedulingPolicySuite`, give it a policy, and pytest runs the rest::

    class TestHEFT(SchedulingPolicySuite):
        def make_policy(self):
            return HEFT()
"""

from __future__ import annotations

import copy
import random
from typing import TYPE_CHECKING

import pytest

from helix_kernel.errors import UnschedulableError
from helix_kernel.scheduling import Schedule, serial_schedule
from helix_kernel.testing.suite import Suite
from helix_kernel.testing.task_graphs import IMPOSSIBLE, SHAPES, impossible, problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from helix_kernel.scheduling import Device, SchedulingPolicy, Task

_of_every_shape = pytest.mark.parametrize("shape", SHAPES)


class SchedulingPolicySuite(Suite):
    """Pytest class of the protocol of scheduling policies (docs: "What each kind must be").

    A subclass overrides `make_policy`.

    Attributes:
        seeds: Of the problems that are made up in each shape.
    """

    seeds: Sequence[int] = range(4)

    def make_policy(self) -> SchedulingPolicy:
        """Return a new policy."""
        policy: SchedulingPolicy = self.build()
        return policy

    @_of_every_shape
    def test_plans_are_valid(self, shape: str) -> None:
        for seed in self.seeds:
            tasks, devices = problem(shape, seed)
            faults = self._plan(tasks, devices, seed).violations(tasks, devices)
            assert not faults, _listed(f"the plan for {shape} {seed} is not valid", faults) + self._see(
                shape, seed, "policy.plan(tasks, devices, seed=seed).violations(tasks, devices)"
            )

    @_of_every_shape
    def test_the_order_of_the_input_does_not_matter_to_validity(self, shape: str) -> None:
        for seed in self.seeds[:2]:
            tasks, devices = problem(shape, seed)
            for change in ("reversed", "sorted"):
                again = _ordered(tasks, change)
                faults = self._plan(again, devices[::-1], seed).violations(again, devices)
                assert not faults, _listed(f"{shape} {seed} with tasks {change}: no valid plan", faults) + (
                    self._see(
                        shape,
                        seed,
                        "tasks = tasks[::-1]" if change == "reversed" else "tasks.sort(key=lambda t: t.id)",
                        "policy.plan(tasks, devices[::-1], seed=seed).violations(tasks, devices)",
                    )
                )

    @_of_every_shape
    def test_no_plan_takes_longer_than_one_task_at_a_time(self, shape: str) -> None:
        for seed in self.seeds:
            tasks, devices = problem(shape, seed)
            plan, serial = self._plan(tasks, devices, seed), serial_schedule(tasks, devices)
            assert plan.makespan <= serial.makespan * (1 + 1e-9), (
                f"the plan for {shape} {seed} takes {plan.makespan:g} seconds, one task at a time "
                f"{serial.makespan:g}"
                + self._see(
                    shape,
                    seed,
                    "from helix_kernel.scheduling import serial_schedule",
                    "policy.plan(tasks, devices, seed=seed).makespan",
                    "serial_schedule(tasks, devices).makespan",
                )
            )

    @_of_every_shape
    def test_one_seed_gives_one_plan(self, shape: str) -> None:
        """Of one policy asked twice, and of another one, whatever the process has drawn meanwhile."""
        tasks, devices = problem(shape, 0)
        policy, plans = self.make_policy(), []
        for drawn, asked in ((1, policy), (2, policy), (3, self.make_policy())):
            random.seed(drawn)
            plans.append(asked.plan(list(tasks), list(devices), seed=7))
        assert plans[0] == plans[1] == plans[2], (
            f"three plans for {shape} 0 with seed 7 differ; draw from random.Random(seed) alone, keep "
            "nothing between plans, and let no set decide an order"
            + self._see(
                shape,
                0,
                "[policy.plan(tasks, devices, seed=7) for _ in range(2)]",
                "# should be twice the same",
            )
        )

    def test_nothing_to_do_is_an_empty_plan(self) -> None:
        see = self.see(f"policy = {self.how('make_policy()')}", "policy.plan([], [], seed=0)")
        for devices in (problem("wide", 0)[1], []):
            what = f"without tasks, on {len(devices)} devices, the policy"
            try:
                plan = self._plan([], devices, 0)
            except Exception as error:
                raise AssertionError(f"{what} raises {type(error).__name__}: {error}{see}") from error
            assert plan.assignments == (), f"{what} plans {plan.assignments}{see}"

    @pytest.mark.parametrize("what", IMPOSSIBLE)
    def test_what_no_plan_can_meet_is_refused(self, what: str) -> None:
        tasks, devices = impossible(what)
        see = self.see(
            "from helix_kernel.testing.task_graphs import impossible",
            f"tasks, devices = impossible({what!r})",
            f"{self.how('make_policy()')}.plan(tasks, devices, seed=0)",
        )
        hint = "helix_kernel.scheduling.check_schedulable raises it"
        try:
            plan = self.make_policy().plan(tasks, devices, seed=0)
        except UnschedulableError as error:
            assert str(error), "the error says nothing" + see  # noqa: PT017 - any other one is the fault
        except Exception as error:
            raise AssertionError(
                f"{what}: the policy raises {type(error).__name__}: {error}; raise UnschedulableError, {hint}"
                + see
            ) from error
        else:
            raise AssertionError(f"{what}: the policy plans {plan}; raise UnschedulableError, {hint}" + see)

    @_of_every_shape
    def test_inputs_are_not_changed(self, shape: str) -> None:
        tasks, devices = problem(shape, 0)
        before = copy.deepcopy((tasks, devices))
        self._plan(tasks, devices, 0)
        assert (tasks, devices) == before, "the policy changed its lists of tasks and devices" + self._see(
            shape, 0, "before = list(tasks)", "policy.plan(tasks, devices, seed=0)", "tasks == before"
        )

    def _plan(self, tasks: list[Task], devices: list[Device], seed: int) -> Schedule:
        plan = self.make_policy().plan(tasks, devices, seed=seed)
        assert isinstance(plan, Schedule), (
            f"plan() gives {type(plan).__name__}; allowed is helix_kernel.scheduling.Schedule"
        )
        return plan

    def _see(self, shape: str, seed: int, *lines: str) -> str:
        return self.see(
            "import helix_kernel",
            "from helix_kernel.testing.task_graphs import problem",
            f"seed, policy = {seed}, {self.how('make_policy()')}",
            f"tasks, devices = problem({shape!r}, seed)",
            *lines,
        )


def _ordered(tasks: list[Task], change: str) -> list[Task]:
    return tasks[::-1] if change == "reversed" else sorted(tasks, key=lambda task: task.id)


def _listed(head: str, faults: list[str]) -> str:
    more = f"\n  and {len(faults) - 4} more" if len(faults) > 4 else ""
    return head + ":" + "".join(f"\n  {fault}" for fault in faults[:4]) + more
