"""`helix train --locked`, and the record of source that a run's checkpoints carry."""

from __future__ import annotations

import json
import shutil
import sys

import attrs
import pytest
import tomli_w
import toy_lm

from helix_kernel import Kernel
from helix_kernel.checkpoint import Checkpoint, load, save
from helix_kernel.cli import main
from helix_kernel.plugins import Manifest
from helix_kernel.restore import open_run


@pytest.fixture
def config(table, tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(tomli_w.dumps({**table, "trainer": {**table["trainer"], "steps": 2}}))
    return path


@pytest.fixture
def helix(installed, capsys, monkeypatch):
    """Run a command; returns its exit code and standard error."""
    monkeypatch.setattr("helix_train.reporting.draw_loss_curve", lambda records, path: path)
    monkeypatch.setattr("helix_train.reporting.write_report", lambda out: out)

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return ended.value.code, capsys.readouterr().err

    return run


def test_a_run_that_is_as_locked_runs_and_resumes_elsewhere(helix, config, tmp_path):
    assert helix("config", "lock", config)[0] == 0
    assert helix("train", config, "--locked")[0] == 0
    assert (tmp_path / "run/checkpoints").is_dir()
    moved = f"trainer.out={tmp_path / 'moved'}"
    shutil.copytree(tmp_path / "run", tmp_path / "moved")
    assert helix("train", config, moved, "trainer.resume=true", "--locked")[0] == 0


def test_checking_is_of_one_mind_with_it(helix, config):
    helix("config", "lock", config)
    for changed, code in (("trainer.out=elsewhere", 0), ("trainer.resume=auto", 0), ("trainer.steps=3", 2)):
        assert helix("config", "check", config, changed, "--locked")[0] == code


def test_one_that_is_not_as_locked_is_refused_before_it_writes(helix, config, tmp_path):
    helix("config", "lock", config)
    code, err = helix("train", config, "optimizer.lr=0.2", "--locked")
    assert code == 2
    assert "optimizer.lr: locked is 0.1, given is 0.2: set it back to 0.1" in err
    assert not (tmp_path / "run").exists()
    assert helix("train", config, "optimizer.lr=0.2")[0] == 0


@pytest.mark.parametrize("options", [["--locked"], ["--locked", "--dry-run"], ["--lock", "gone.toml"]])
def test_without_a_lock_it_says_how_to_make_one(helix, config, options):
    code, err = helix("train", config, *options)
    assert code == 2
    assert f"make it by: helix config lock {config}" in err


def test_a_checkpoint_carries_what_the_lock_records(helix, config, tmp_path):
    lock = tmp_path / "locked.toml"
    helix("config", "lock", config, "--out", lock)
    assert helix("train", config, "--lock", lock)[0] == 0
    with Checkpoint.open(tmp_path / "run/checkpoints/step-00000002") as checkpoint:
        record = checkpoint.attributes["lock"]
    assert set(record["distributions"]) == {"helix-kernel", "helix-train", "toy-lm"}
    assert record["components"]["layer/toy-lm:toy"]["source"].startswith("sha256:")
    text = lock.read_text()
    assert all(component["source"] in text for component in record["components"].values())


def test_opening_one_tells_what_source_changed_since(helix, config, kernel, tmp_path, monkeypatch, caplog):
    helix("train", config)
    open_run(tmp_path / "run")
    assert caplog.text == ""
    changed = tmp_path / "changed"
    changed.mkdir()
    source = (sys.modules["toy_lm"].__file__, changed / "toy_lm.py")
    shutil.copy(*source)
    with source[1].open("a") as file:
        file.write("# another line\n")
    monkeypatch.syspath_prepend(str(changed))
    open_run(tmp_path / "run")
    assert (
        "was saved by other source, of the same version: toy-lm 1.0: its source is not what was"
        in caplog.text
    )
    assert "layer/toy-lm:toy" in caplog.text
    assert "pip install --force-reinstall --no-deps toy-lm==1.0" in caplog.text
    assert "helix-train" not in caplog.text


@pytest.fixture
def trained(helix, config, tmp_path):
    """A run, whose checkpoint carries a record."""
    assert helix("train", config)[0] == 0
    return tmp_path / "run"


def with_record(run, record):
    """Return a checkpoint like a run's, with another record."""
    state, attributes = load(run / "checkpoints/step-00000002"), open_run(run).attributes
    save(run.parent / "other", state, attributes={**attributes, "lock": record})
    return run.parent / "other"


def test_evaluation_is_held_to_what_its_checkpoint_records(helix, trained):
    assert helix("eval", trained, "--locked")[0] == 0


def no_record(record):
    record.clear()


def another_version(record):
    record["distributions"]["toy-lm"]["version"] = "1.0.1"


def another_source(record):
    record["components"]["dataset/toy-lm:toy-data"]["source"] = "sha256:0"


def another_backend(record):
    fast = {"distribution": "helix-fast", "version": "2.0", "target": "a:b", "source": ""}
    record["components"]["backend/helix-fast:fast"] = fast
    record["distributions"]["helix-fast"] = {"version": "2.0", "source": ""}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (no_record, "does not say what saved it"),
        (another_version, "toy-lm: locked is 1.0.1, installed is 1.0: "),
        (another_source, "1.0: its source is not what was recorded in dataset/toy-lm:toy-data (toy_lm:"),
        (another_backend, "helix-fast: locked is 2.0, installed is none: "),
    ],
)
def test_evaluation_is_refused_where_something_else_would_serve(helix, trained, change, says):
    record = open_run(trained).attributes["lock"]
    change(record)
    other = with_record(trained, record)
    code, err = helix("eval", other, "--locked")
    assert code == 2
    assert says in err
    assert helix("eval", other)[0] == 0


def test_one_of_before_there_was_such_a_record_opens_without_a_word(helix, config, tmp_path, caplog):
    helix("train", config)
    run = open_run(tmp_path / "run")
    for record in (None, {"components": {}}, "by a later version"):
        older = attrs.evolve(run, attributes={**run.attributes, "lock": record})
        assert older.source_changes() == []
    assert caplog.text == ""


def test_another_version_is_refused_as_ever_and_not_told_as_source(helix, config, tmp_path, monkeypatch):
    helix("train", config)
    run = open_run(tmp_path / "run")
    record = json.loads(json.dumps(run.attributes["lock"]))
    record["distributions"]["toy-lm"] = {"version": "1.1", "source": "sha256:0"}
    newer = attrs.evolve(run, attributes={**run.attributes, "lock": record})
    assert newer.source_changes() == []
    kernel = Kernel(
        found=[], manifests=[Manifest(name="toy", provider="toy-lm", version="2.0", module=toy_lm)]
    )
    with pytest.raises(Exception, match=r"it needs toy-lm 1\.0, installed is 2\.0"):
        run.check(["model"], kernel=kernel)
