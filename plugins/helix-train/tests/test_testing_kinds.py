"""The suites of schedules and metrics pass ours, and catch each of these faults."""

from __future__ import annotations

import functools
import math

import pytest
import torch

from helix_kernel import Kernel
from helix_kernel.errors import ArgumentError
from helix_kernel.testing.faults import caught_by
from helix_kernel.testing.provider_cases import derive
from helix_train.metrics.base import Metric
from helix_train.metrics.classes import Accuracy
from helix_train.metrics.differences import MeanAbsoluteError as Distance
from helix_train.schedules.decay import Cosine
from helix_train.testing.metrics import MetricSuite
from helix_train.testing.schedules import ScheduleSuite


class LeavesItsBounds(Cosine):
    def decay(self, progress):
        return super().decay(progress) - 0.1


class EndsInNothing(Cosine):
    def __call__(self, step):
        return super().__call__(step) if step < self.total_steps else float("nan")


class NeverBegins(Cosine):
    def __call__(self, step):
        return 0.0


class CountsItsCalls(Cosine):
    n_calls = 0

    def __call__(self, step):
        self.n_calls += 1
        return super().__call__(self.n_calls)


class PlansForNoSteps(Cosine):
    def __init__(self, *, total_steps):
        super().__init__(total_steps=max(total_steps, 1))


class DividesByTheLength(Cosine):
    def __call__(self, step):
        return 1 - step / (self.total_steps - 1) if self.total_steps > 1 else 0.0


class MeanOfMeans(Distance):
    def measure(self, prediction, target):
        found = super().measure(prediction, target)
        count = max(int(found["count"]), 1)
        return {name: value.double() / count for name, value in found.items()}


class KeepsTheLastBatchAlone(Distance):
    def update(self, prediction, target, *, mask=None):
        self.reset()
        super().update(prediction, target, mask=mask)


class ForgetsToForget(Distance):
    def reset(self):
        pass


class SharesItsSums(Distance):
    def state(self):
        return self._sums

    def merge(self, state):
        for name, value in state.items():
            self._sums[name] = value if name not in self._sums else self._sums[name].add_(value)


class SumsInSinglePrecision(Distance):
    def state(self):
        return {name: value.float() for name, value in super().state().items()}


class ChangesWhenItIsRead(Distance):
    def compute(self):
        value = super().compute()
        self._sums["count"] = self._sums["count"] + 1
        return value


class ZeroOfNothing(Distance):
    def compute(self):
        value = super().compute()
        return 0.0 if math.isnan(value) else value


class IgnoresTheMask(Distance):
    def update(self, prediction, target, *, mask=None):
        super().update(prediction.nan_to_num(), target)


class MultipliesByTheMask(Metric):
    """The usual shortcut, through which a NaN under the mask comes."""

    name = "shortcut"

    def update(self, prediction, target, *, mask=None):
        self.check_shapes(prediction, target)
        mask = torch.ones_like(target) if mask is None else mask.expand(target.shape).to(target.dtype)
        self.merge({"sum": ((prediction - target).abs() * mask).sum(), "count": mask.sum()})

    def measure(self, prediction, target):
        raise NotImplementedError

    def compute(self):
        return self.ratio("sum", "count")


class WritesIntoItsInputs(Distance):
    def update(self, prediction, target, *, mask=None):
        super().update(prediction.mul_(1.001), target, mask=mask)


class KeepsTheGraph(Distance):
    def update(self, prediction, target, *, mask=None):
        super().update(prediction, target, mask=mask)
        if prediction.requires_grad:
            self._sums["graph"] = (prediction - target).abs().sum().double()


class Broadcasts(Distance):
    def update(self, prediction, target, *, mask=None):
        if prediction.dim() > 2:
            raise ArgumentError("prediction has an axis too many")
        super().update(prediction, target.expand(prediction.shape), mask=mask)


SCHEDULES = [
    (LeavesItsBounds, "test_every_multiple_lies_in_its_bounds", "gets -0.09.*; allowed is 0 to 1"),
    (EndsInNothing, "test_after_the_end_it_stays_defined", "step 10 of 10 gets nan"),
    (NeverBegins, "test_some_step_is_taken", "nothing would be learned"),
    (CountsItsCalls, "test_a_multiple_depends_on_the_step_alone", "keep nothing between calls"),
    (PlansForNoSteps, "test_a_run_of_no_steps_is_refused", "total_steps=0 is taken"),
    (DividesByTheLength, "test_some_step_is_taken", "all 1 steps get 0"),
]

METRICS = [
    (MeanOfMeans, "test_parts_give_what_the_whole_gives", "keep sums, and divide"),
    (KeepsTheLastBatchAlone, "test_parts_give_what_the_whole_gives", "one after another give"),
    (ForgetsToForget, "test_reset_forgets_all", r"after reset\(\) the metric gives"),
    (SharesItsSums, "test_a_state_that_is_merged_is_not_kept", "changes a state"),
    (SumsInSinglePrecision, "test_a_state_is_of_plain_sums", "is of torch.float32"),
    (ChangesWhenItIsRead, "test_a_value_is_a_number_under_a_name", "it changes what was seen"),
    (ZeroOfNothing, "test_nothing_seen_is_nan", "has seen nothing gives 0.0"),
    (IgnoresTheMask, "test_masked_elements_do_not_count", r"masked elements \(other\)"),
    (
        MultipliesByTheMask,
        "test_masked_elements_do_not_count",
        r"\(nan\) the metric gives nan",
    ),
    (WritesIntoItsInputs, "test_inputs_are_not_changed", "wrote into its prediction"),
    (KeepsTheGraph, "test_gradients_are_not_kept", r"holds \['graph'\] with their graph"),
    (Broadcasts, "test_a_wrong_shape_is_refused", "the metric takes one row"),
]


@pytest.mark.parametrize(("fault", "case", "says"), SCHEDULES, ids=[row[0].__name__ for row in SCHEDULES])
def test_a_fault_of_a_schedule_is_caught_by_the_case_meant_for_it(tmp_path, fault, case, says):
    caught_by(of_schedule(fault), case, says, right=of_schedule(Cosine), tmp_path=tmp_path)


@pytest.mark.parametrize(("fault", "case", "says"), METRICS, ids=[row[0].__name__ for row in METRICS])
def test_a_fault_of_a_metric_is_caught_by_the_case_meant_for_it(tmp_path, fault, case, says):
    caught_by(of_metric(fault), case, says, right=of_metric(Distance), tmp_path=tmp_path)


def of_schedule(schedule):
    def make_schedule(self, total_steps):
        return schedule(total_steps=total_steps)

    return type("Suite", (ScheduleSuite,), {"make_schedule": make_schedule})


def of_metric(metric):
    return type("Suite", (MetricSuite,), {"make_metric": lambda self: metric()})


class TestAccuracy(MetricSuite):
    def make_metric(self):
        return Accuracy()


@functools.cache
def derived():
    found = derive(Kernel(plugins=["helix-train"]), "helix-train")
    return {
        f"Test_{name}": suite for name, suite in found.items() if name.startswith(("schedule-", "metric-"))
    }


globals().update(derived())
