"""The logger `mlflow`, read back by MLflow's own client from a store on disk."""

from __future__ import annotations

import math
import sys

import pytest

from helix_kernel.errors import DataError, DependencyError, InputError
from helix_train.loggers.base import RunInfo
from helix_train.loggers.mlflow import MLflowLogger

pytest.importorskip("mlflow")


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a database needs SQLAlchemy besides
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/store")
    (tmp_path / "run").mkdir()
    return tmp_path


@pytest.fixture
def client(store):
    from mlflow.tracking import MlflowClient

    return MlflowClient()


def begun(store, step=0, config=None, **options):
    logger = MLflowLogger(**options)
    config = {"optimizer": {"lr": 0.1}} if config is None else config
    logger.begin(
        RunInfo(
            out=store / "run",
            name="first",
            config=config,
            environment={"torch": "2.6", "threads": 1},
            step=step,
        )
    )
    return logger


def runs(client, experiment="helix"):
    found = client.get_experiment_by_name(experiment)
    return client.search_runs([found.experiment_id])


def history(client, name):
    (run,) = runs(client)
    return [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]


def test_metrics_have_their_steps(store, client):
    logger = begun(store)
    logger.log(10, {"loss": 2.5, "lr": 0.1 + 0.2})
    logger.log(20, {"loss": 1.5})
    logger.log(20, {"validation_loss": 1.25})
    logger.finish("done")
    assert history(client, "loss") == [(10, 2.5), (20, 1.5)]
    assert history(client, "lr") == [(10, 0.1 + 0.2)]
    assert history(client, "validation_loss") == [(20, 1.25)]


def test_config_environment_and_tags_describe_the_run(store, client):
    config = {"optimizer": {"lr": 0.1, "betas": [0.9, 0.95]}, "data": {"paths": ["x" * 2000], "seed": None}}
    begun(store, config=config, experiment="mine", tags={"who": "me"}).finish("done")
    (run,) = runs(client, "mine")
    assert run.info.run_name == "first"
    assert run.data.params == {
        "optimizer.lr": "0.1",
        "optimizer.betas.0": "0.9",
        "optimizer.betas.1": "0.95",
        "data.paths.0": "x" * 500,
    }
    assert run.data.tags["who"] == "me"
    assert run.data.tags["environment.torch"] == "2.6"
    assert run.data.tags["environment.threads"] == "1"


def test_a_config_of_more_options_than_a_batch_is_whole(store, client):
    begun(store, config={f"option{i}": i for i in range(250)}).finish("done")
    (run,) = runs(client)
    assert run.data.params == {f"option{i}": str(i) for i in range(250)}


@pytest.mark.parametrize(
    ("status", "shown"), [("done", "FINISHED"), ("failed", "FAILED"), ("interrupted", "KILLED")]
)
def test_the_end_is_told(store, client, status, shown):
    logger = begun(store)
    assert runs(client)[0].info.status == "RUNNING"
    logger.finish(status)
    assert runs(client)[0].info.status == shown


def test_names_that_mlflow_does_not_allow_are_changed_and_stay_apart(store, client):
    logger = begun(store)
    names = ["a%b", "a b", "a?b", "a//b", "/a/b", "../a/b", "x" * 300, "größer/als 1", "..", "line\nbreak"]
    for step in (1, 2):
        logger.log(step, {name: float(index) for index, name in enumerate(names)})
    logger.finish("done")
    found = runs(client)[0].data.metrics
    assert sorted(found.values()) == [float(index) for index in range(len(names))]
    assert (found["a_b"], found["a_b_2"]) == (0.0, 2.0)
    assert history(client, "größer/als 1") == [(1, 7.0), (2, 7.0)]


def test_numbers_that_are_not_finite_do_not_end_the_logging(store, client):
    logger = begun(store)
    logger.log(1, {"a": math.nan, "b": math.inf, "c": -math.inf})
    logger.log(2, {"a": 1.0})
    logger.finish("failed")
    assert math.isnan(history(client, "a")[0][1])
    assert history(client, "b") == [(1, math.inf)]
    assert history(client, "c") == [(1, -math.inf)]


class TestGoingOn:
    def test_a_run_that_resumes_is_the_same_run_and_logs_no_step_twice(self, store, client):
        logger = begun(store)
        for step in (2, 4, 6):
            logger.log(step, {"loss": step})
        # killed: nobody finishes it
        other = begun(store, step=4, config={"changed": True})
        assert runs(client)[0].info.status == "RUNNING"
        for step in (6, 8):
            other.log(step, {"loss": step})
        other.finish("done")
        assert history(client, "loss") == [(2, 2.0), (4, 4.0), (6, 6.0), (8, 8.0)]

    def test_a_run_that_goes_back_within_itself_adds_what_it_does_again(self, store, client):
        logger = begun(store)
        for step, loss in ((2, 1.0), (4, 9.0), (4, 2.0)):
            logger.log(step, {"loss": loss})
        logger.finish("done")
        assert history(client, "loss") == [(2, 1.0), (4, 9.0), (4, 2.0)]

    def test_what_was_undone_is_logged_anew_after_the_run_was_killed(self, store, client):
        logger = begun(store)
        for step in (2, 4, 6):
            logger.log(step, {"loss": step})
        logger.drop_after(2)
        # killed before it has logged anything of the steps that it does again
        other = begun(store, step=2)
        for step in (4, 6):
            other.log(step, {"loss": 10 * step})
        other.finish("done")
        assert history(client, "loss") == [(2, 2.0), (4, 4.0), (6, 6.0), (4, 40.0), (6, 60.0)]

    def test_what_a_resumed_run_undoes_is_logged_anew(self, store, client):
        begun(store).log(6, {"loss": 6})
        other = begun(store, step=2)
        other.drop_after(2)
        other.log(4, {"loss": 40})
        other.finish("done")
        assert history(client, "loss") == [(6, 6.0), (4, 40.0)]

    def test_a_run_from_the_beginning_is_another_run(self, store, client):
        begun(store).finish("failed")
        begun(store).finish("done")
        assert sorted(run.info.status for run in runs(client)) == ["FAILED", "FINISHED"]

    def test_a_damaged_note_of_the_run_is_named(self, store):
        begun(store).finish("failed")
        (store / "run" / "mlflow.json").write_text('{"run_id"')
        with pytest.raises(DataError, match=r"mlflow\.json is damaged; remove it"):
            begun(store, step=2)


def test_without_a_place_to_log_to_the_error_names_the_option(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(InputError, match="no tracking_uri; set it, or MLFLOW_TRACKING_URI"):
        begun(tmp_path)


def test_without_mlflow_the_error_says_what_to_install(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    with pytest.raises(DependencyError, match=r"pip install 'helix-train\[mlflow\]'"):
        begun(store)
