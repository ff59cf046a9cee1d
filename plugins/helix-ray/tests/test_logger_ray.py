"""The logger `ray`, with a stand-in for Ray Tune that keeps what is reported."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from helix_kernel.errors import InputError
from helix_ray.logger import RayLogger


@pytest.fixture
def tune(monkeypatch):
    """Ray Tune as a trial sees it; ``trial`` is its id."""
    tune = SimpleNamespace(trial="abc_00000", reports=[])
    tune.get_context = lambda: SimpleNamespace(get_trial_id=lambda: tune.trial)
    tune.report = tune.reports.append
    for name, module in {"ray": SimpleNamespace(tune=tune), "ray.tune": tune, "ray.train": None}.items():
        monkeypatch.setitem(sys.modules, name, module or SimpleNamespace())
    return tune


def test_only_lines_with_the_metric_are_reported_together_with_what_came_before(tune):
    logger = RayLogger(metric="validation_loss")
    logger.begin(None)
    logger.log(1, {"loss": 3.0})
    logger.log(2, {"loss": 2.0})
    logger.log(2, {"validation_loss": 2.5})
    logger.log(3, {"loss": 1.0})
    assert tune.reports == [{"loss": 2.0, "validation_loss": 2.5, "step": 2}]


def test_without_a_metric_every_line_is_reported(tune):
    logger = RayLogger()
    logger.begin(None)
    logger.log(1, {"loss": 3.0})
    logger.log(2, {"lr": 0.1})
    logger.finish("done")
    assert tune.reports == [{"loss": 3.0, "step": 1}, {"loss": 3.0, "lr": 0.1, "step": 2}]


def test_a_run_that_is_no_trial_is_told_to_leave_it_out(tune):
    tune.trial = None
    with pytest.raises(InputError, match=r"this run is no trial of it; leave it out of trainer\.loggers"):
        RayLogger().begin(None)
