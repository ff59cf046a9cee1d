"""Sizes of batches and places of stages, from what was measured."""

import pytest
import torch
from torch import nn

from helix_kernel.backends import Memory
from helix_kernel.errors import ArgumentError, UnschedulableError
from helix_kernel.scheduling import Device, Schedule, Task
from helix_kernel.testing.scheduling_policies import SchedulingPolicySuite
from helix_multimodal.placement.choosing import choose
from helix_multimodal.placement.earliest_finish import EarliestFinish
from helix_multimodal.placement.measuring import Measurement, measure
from helix_multimodal.placement.stages import Stage, memory_of_devices, place


class TestEarliestFinish(SchedulingPolicySuite):
    def make_policy(self):
        return EarliestFinish()


def test_a_larger_batch_keeps_more_and_the_count_is_that_of_its_tensors():
    model = nn.Sequential(nn.Linear(100, 50), nn.Tanh(), nn.Linear(50, 1))
    inputs = {size: torch.randn(size, 100) for size in (8, 64)}
    found = measure(model, lambda size: model(inputs[size]).square().sum(), sizes=(64, 8))
    assert [one.batch_size for one in found] == [8, 64]
    weights = 2 * 4 * sum(parameter.numel() for parameter in model.parameters())
    # Kept are the inputs (100), the output of tanh (50) and what is squared (1), of each row.
    assert [one.peak_bytes for one in found] == [weights + 4 * size * 151 for size in (8, 64)]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_sizes_that_do_not_fit_end_the_measuring():
    model = nn.Linear(1, 1)

    def step(size):
        if size > 4:
            raise torch.OutOfMemoryError("full")
        return model(torch.ones(size, 1)).sum()

    assert [one.batch_size for one in measure(model, step, sizes=(1, 2, 4, 8, 16))] == [1, 2, 4]


def measured(*rows):
    return [Measurement(device=d, batch_size=b, seconds=s, peak_bytes=n) for d, b, s, n in rows]


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        ({}, ("gpu", 32)),  # 64 is 3 % faster: not worth it
        ({"gpu": 300}, ("gpu", 16)),
        ({"gpu": 10}, ("cpu", 16)),
    ],
)
def test_the_smallest_batch_near_the_most_rows_a_second_is_chosen(memory, expected):
    found = choose(
        measured(
            ("gpu", 16, 1.0, 100),
            ("gpu", 32, 1.55, 350),
            ("gpu", 64, 3.0, 900),
            ("cpu", 16, 4.0, 100),
            ("cpu", 32, 8.0, 200),
        ),
        memory,
    )
    assert (found.device, found.batch_size) == expected


def test_where_nothing_fits_the_least_is_named():
    with pytest.raises(ArgumentError, match="the least, of 8 rows on cpu, takes 1,000 bytes of 900"):
        choose(measured(("cpu", 8, 1.0, 1000), ("cpu", 16, 1.0, 2000)), {"cpu": 900})


@pytest.mark.parametrize("options", [{"knee": 0}, {"spare": 1}])
def test_shares_out_of_range_are_refused(options):
    with pytest.raises(ArgumentError, match=next(iter(options))):
        choose(measured(("cpu", 8, 1.0, 1)), {}, **options)


STAGES = [
    Stage(name="picture", seconds={"cpu": 4.0, "gpu": 1.0}, n_bytes=60),
    Stage(name="speech", seconds={"cpu": 3.0, "gpu": 3.5}, n_bytes=60),
    Stage(name="fusion", seconds={"cpu": 1.0, "gpu": 0.5}, n_bytes=10, after=("picture", "speech")),
]


def test_stages_run_side_by_side_where_each_is_quick():
    plan = place(STAGES, {"cpu": 100, "gpu": 100})
    where = {one.task: (one.device, one.start, one.end) for one in plan.assignments}
    assert where["picture"] == ("gpu", 0.0, 1.0)
    assert where["speech"] == ("cpu", 0.0, 3.0)
    assert where["fusion"] == ("gpu", 3.0, 3.5)


def test_a_stage_that_fits_nowhere_is_named():
    with pytest.raises(UnschedulableError, match="'picture' fits no device"):
        place(STAGES, {"cpu": 50, "gpu": 50})


class Overbooks:
    def plan(self, tasks, devices, *, seed):
        return Schedule([])


class OneBackend:
    """A kernel of one component of each kind that is asked for."""

    def __init__(self, built):
        self.built = built

    def components(self, kind):
        return [type("Component", (), {"qualified": "x:y"})]

    def build(self, kind, table):
        return self.built


def test_a_plan_that_is_not_valid_is_refused():
    with pytest.raises(UnschedulableError, match="'wrong' made a plan that is not valid"):
        place(STAGES, {"cpu": 100, "gpu": 100}, policy="wrong", kernel=OneBackend(Overbooks()))


class TwoDevices:
    device_type = "cuda"

    def probe(self):
        return type("Probe", (), {"available": True})

    def memory(self, index=0):
        return Memory(total=100, available=90 - index) if index < 2 else None


def test_backends_tell_the_memory_of_devices():
    assert memory_of_devices(OneBackend(TwoDevices())) == {"cuda:0": 90, "cuda:1": 89}
    assert memory_of_devices().get("cpu", 1) > 0


def test_urgent_tasks_come_first():
    """Against a plan by hand: the long way first, although another task comes before it."""
    tasks = [
        Task(id="short", work=1),
        Task(id="long", work=2),
        Task(id="after", work=5, predecessors=("long",)),
    ]
    plan = EarliestFinish().plan(tasks, [Device(id="one")], seed=0)
    assert [one.task for one in sorted(plan.assignments, key=lambda a: a.start)] == ["long", "after", "short"]
