"""The logger `tensorboard`, read back by TensorBoard's own accumulator."""

from __future__ import annotations

import json
import math
import sys
import time
from types import SimpleNamespace

import pytest

from helix_kernel.errors import DependencyError
from helix_train.loggers.base import RunInfo
from helix_train.loggers.tensorboard import TensorBoardLogger

pytest.importorskip("tensorboard")

CONFIG = {
    "model": {"use": "toy", "d_model": 8, "bias": None},
    "optimizer": {"lr": 0.1, "betas": [0.9, 0.95], "fused": False},
}


def info(out, step=0):
    return RunInfo(out=out, name="run", config=CONFIG, environment={"torch": "2"}, step=step)


@pytest.fixture
def logger(tmp_path, monkeypatch):
    """Make loggers into one directory, begun at a step, each some seconds after the last as runs are."""
    from tensorboard.summary.writer import event_file_writer

    made = []
    begun_at = time.time()
    clock = SimpleNamespace(**vars(time) | {"time": lambda: begun_at + 10 * len(made)})
    monkeypatch.setattr(event_file_writer, "time", clock)

    def begun(step=0):
        made.append(TensorBoardLogger())
        made[-1].begin(info(tmp_path, step))
        return made[-1]

    yield begun
    for one in made:
        one._writer.close()


def accumulated(out):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(out / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0}).Reload()


def curve(out, name):
    return [(event.step, event.value) for event in accumulated(out).Scalars(name)]


def test_each_metric_is_a_curve(tmp_path, logger):
    one = logger()
    one.log(10, {"loss": 2.5, "lr": 0.5})
    one.log(20, {"loss": 1.5})
    one.log(20, {"validation_loss": 1.25})
    one.finish("done")
    assert curve(tmp_path, "loss") == [(10, 2.5), (20, 1.5)]
    assert curve(tmp_path, "lr") == [(10, 0.5)]
    assert curve(tmp_path, "validation_loss") == [(20, 1.25)]


@pytest.mark.parametrize("name", ["blocks.0/codebook use %", "größer", "a\nb", "ünï—<code>"])
def test_names_of_any_characters_are_kept(tmp_path, logger, name):
    one = logger()
    one.log(1, {name: 1.0})
    one.finish("done")
    assert curve(tmp_path, name) == [(1, 1.0)]


def test_numbers_that_are_not_finite_are_kept(tmp_path, logger):
    one = logger()
    for step, value in enumerate((math.nan, math.inf, -math.inf), 1):
        one.log(step, {"loss": value})
    one.finish("failed")
    values = [value for _, value in curve(tmp_path, "loss")]
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf]


def test_config_and_environment_are_there_as_text(tmp_path, logger):
    logger().finish("done")
    for name, told in (("config", CONFIG), ("environment", {"torch": "2"})):
        (event,) = accumulated(tmp_path).Tensors(f"{name}/text_summary")
        assert json.loads(event.tensor_proto.string_val[0]) == told


@pytest.mark.parametrize(("status", "ended"), [("done", True), ("failed", False)])
def test_what_the_config_sets_are_hyperparameters(tmp_path, logger, status, ended):
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    logger().finish(status)
    content = accumulated(tmp_path).summary_metadata
    start = content["_hparams_/session_start_info"].plugin_data.content
    found = HParamsPluginData.FromString(start).session_start_info.hparams
    assert {name: value.WhichOneof("kind") for name, value in found.items()} == {
        "model.use": "string_value",
        "model.d_model": "number_value",
        "optimizer.lr": "number_value",
        "optimizer.betas.0": "number_value",
        "optimizer.betas.1": "number_value",
        "optimizer.fused": "number_value",  # torch takes a truth value for a number
    }
    assert found["optimizer.lr"].number_value == 0.1
    assert ("_hparams_/session_end_info" in content) == ended


class TestGoingOn:
    def test_a_run_that_resumes_shows_no_step_twice(self, tmp_path, logger):
        one = logger()
        for step in (2, 4, 6):
            one.log(step, {"loss": step})
        one.finish("interrupted")
        other = logger(step=4)
        other.log(6, {"loss": 60})
        other.finish("done")
        assert curve(tmp_path, "loss") == [(2, 2.0), (4, 4.0), (6, 60.0)]

    def test_a_run_from_the_beginning_shows_nothing_of_the_last(self, tmp_path, logger):
        one = logger()
        one.log(2, {"loss": 2})
        one.finish("failed")
        other = logger()
        other.log(1, {"loss": 10})
        other.finish("done")
        assert curve(tmp_path, "loss") == [(1, 10.0)]

    def test_a_run_that_goes_back_within_itself_shows_no_step_twice(self, tmp_path, logger):
        one = logger()
        for step in (2, 4, 6, 4, 6):
            one.log(step, {"loss": 10 * step})
        one.finish("done")
        assert [step for step, _ in curve(tmp_path, "loss")] == [2, 4, 6]

    def test_points_of_steps_that_were_undone_are_gone_though_none_follows(self, tmp_path, logger):
        one = logger()
        for step in (2, 4, 6):
            one.log(step, {"loss": step})
        one.drop_after(4)
        one.finish("failed")
        assert curve(tmp_path, "loss") == [(2, 2.0), (4, 4.0)]


def test_without_tensorboard_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(DependencyError, match=r"pip install 'helix-train\[tensorboard\]'"):
        TensorBoardLogger().begin(info(tmp_path))
