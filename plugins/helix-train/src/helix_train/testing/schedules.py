"""The conformance suite of schedules: what every schedule must do, whoever wrote it.

Subclass `ScheduleSuite`, give it a schedule, and pytest runs the rest::

    class TestCosine(ScheduleSuite):
        def make_schedule(self, total_steps):
            return Cosine(total_steps=total_steps)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.suite import Suite

if TYPE_CHECKING:
    from collections.abc import Callable

_of_several_lengths = pytest.mark.parametrize("total_steps", [1, 2, 10, 1000])


class ScheduleSuite(Suite):
    """Pytest class of the schedule protocol: a multiple of the learning rate for each step from 0.

    A subclass overrides `make_schedule`.

    Attributes:
        largest: Most that a multiple may be.
    """

    largest = 1.0

    def make_schedule(self, total_steps: int) -> Callable[[int], float]:
        """Return a new schedule of a run of so many steps."""
        schedule: Callable[[int], float] = self.build(total_steps=total_steps)
        return schedule

    @_of_several_lengths
    def test_every_multiple_lies_in_its_bounds(self, total_steps: int) -> None:
        schedule = self.make_schedule(total_steps)
        for step in self._steps(total_steps):
            multiple = schedule(step)
            assert isinstance(multiple, float | int), (
                f"step {step} of {total_steps} gets {multiple!r}, which is no number"
                + self._see(total_steps, f"schedule({step})")
            )
            assert 0 <= multiple <= self.largest, (
                f"step {step} of {total_steps} gets {multiple}; allowed is 0 to {self.largest:g}"
                + self._see(total_steps, f"schedule({step})")
            )

    @_of_several_lengths
    def test_some_step_is_taken(self, total_steps: int) -> None:
        schedule = self.make_schedule(total_steps)
        multiples = [schedule(step) for step in range(total_steps)]
        assert any(multiples), f"all {total_steps} steps get 0: nothing would be learned" + (
            self._see(total_steps, f"[schedule(step) for step in range({min(total_steps, 10)})]")
        )

    @_of_several_lengths
    def test_a_multiple_depends_on_the_step_alone(self, total_steps: int) -> None:
        """So that a resumed run needs no state of the schedule: a new one goes on where it was."""
        steps, whole = self._steps(total_steps), self.make_schedule(total_steps)
        expected = {step: whole(step) for step in steps}
        for step in reversed(steps):
            again, fresh = whole(step), self.make_schedule(total_steps)(step)
            assert again == fresh == expected[step], (
                f"step {step} of {total_steps} gets {expected[step]} in order, {again} when asked again and "
                f"{fresh} of a new schedule; keep nothing between calls"
                + self._see(total_steps, f"schedule({step})", f"schedule({step})  # should be the same")
            )

    def test_after_the_end_it_stays_defined(self) -> None:
        schedule = self.make_schedule(10)
        for step in (10, 11, 1000, 10**9):
            multiple = schedule(step)
            assert math.isfinite(multiple), f"step {step} of 10 gets {multiple}"
            assert 0 <= multiple <= self.largest, f"step {step} of 10 gets {multiple}: it left its bounds" + (
                self._see(10, f"schedule({step})")
            )

    @pytest.mark.parametrize("total_steps", [0, -1])
    def test_a_run_of_no_steps_is_refused(self, total_steps: int) -> None:
        try:
            self.make_schedule(total_steps)
        except ArgumentError:
            return
        except Exception as error:
            if type(error).__name__ == "ConfigError":  # what the config class refuses
                return
            raise AssertionError(
                f"total_steps={total_steps}: {type(error).__name__}: {error}; raise ArgumentError"
            ) from error
        raise AssertionError(f"total_steps={total_steps} is taken; raise ArgumentError")

    @staticmethod
    def _steps(total_steps: int) -> list[int]:
        """Return the first steps, the last ones, and some between."""
        return sorted(
            {*range(min(total_steps, 60)), total_steps // 2, total_steps - 2, total_steps - 1} - {-1}
        )

    def _see(self, total_steps: int, *lines: str) -> str:
        make = self.how(f"make_schedule({total_steps})", total_steps=total_steps)
        return self.see("import helix_kernel", f"schedule = {make}", *lines)
