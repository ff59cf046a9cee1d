"""The logger `wandb`, without a network: what it leaves on disk, read with wandb's own records."""

from __future__ import annotations

import json
import math
import struct
import sys
import time

import pytest

from helix_kernel.errors import DependencyError, InputError
from helix_train.loggers.base import RunInfo
from helix_train.loggers.wandb import WandbLogger

pytest.importorskip("wandb")
BLOCK, HEADER = 32768, 7


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No account, no network and no settings of whoever runs the tests."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT", "WANDB_RUN_ID", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


def begun(out, step=0, **options):
    logger = WandbLogger(mode="offline", **options)
    config = {"optimizer": {"lr": 0.1, "betas": [0.9, 0.95]}}
    logger.begin(RunInfo(out=out, name="first", config=config, environment={"torch": "2.6"}, step=step))
    return logger


def offline_runs(out):
    """Return, for each process that logged, the records that `wandb sync` would send."""
    found = [whole(path) for path in out.glob("wandb/offline-run-*/*.wandb")]
    return sorted(found, key=lambda run: of_kind(run, "run")[0].start_time.ToNanoseconds())


def whole(path):
    """Return the records of a run once wandb's own process has written the last of them."""
    for _ in range(100):
        found = list(records(path.read_bytes()))
        if of_kind(found, "exit"):
            break
        time.sleep(0.1)
    return found


def records(data):
    """Read the log's blocks: LevelDB's form, each piece with its checksum, length and place in a record."""
    from wandb.proto.wandb_internal_pb2 import Record

    assert data[:4] == b":W&B"
    at, pieces = HEADER, []
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:  # a header does not fit: the block's rest is padding
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        pieces.append(data[at + HEADER : at + HEADER + length])
        at += HEADER + length
        if kind in (1, 4):  # whole, or the last piece
            yield Record.FromString(b"".join(pieces))
            pieces = []


def rows(found):
    table = []
    for record in found:
        if record.WhichOneof("record_type") == "history":
            items = {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
            table.append({name: json.loads(value) for name, value in items.items() if name[0] != "_"})
            table[-1]["step"] = record.history.step.num
    return table


def of_kind(found, kind):
    return [getattr(record, kind) for record in found if record.WhichOneof("record_type") == kind]


def test_a_run_without_a_network_is_whole_on_disk(tmp_path):
    logger = begun(tmp_path, project="mine", group="sweep", tags=["a", "b"])
    logger.log(10, {"loss": 2.5, "lr": 0.1 + 0.2})
    logger.log(20, {"loss": 1.5})
    logger.log(20, {"validation_loss": 1.25})
    logger.finish("done")
    (found,) = offline_runs(tmp_path)
    assert rows(found) == [
        {"loss": 2.5, "lr": 0.1 + 0.2, "step": 10},
        {"loss": 1.5, "validation_loss": 1.25, "step": 20},
    ]
    run = of_kind(found, "run")[0]
    assert (run.project, run.display_name, run.run_group, list(run.tags)) == (
        "mine",
        "first",
        "sweep",
        ["a", "b"],
    )
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["optimizer"] == {"lr": 0.1, "betas": [0.9, 0.95]}
    assert config["environment"] == {"torch": "2.6"}
    assert [exit_.exit_code for exit_ in of_kind(found, "exit")] == [0]


@pytest.mark.parametrize(("status", "code"), [("failed", 1), ("interrupted", 255)])
def test_a_run_that_did_not_end_well_says_so(tmp_path, status, code):
    begun(tmp_path).finish(status)
    (found,) = offline_runs(tmp_path)
    assert [exit_.exit_code for exit_ in of_kind(found, "exit")] == [code]


def test_odd_names_and_numbers_are_kept(tmp_path):
    logger = begun(tmp_path)
    logger.log(1, {"blocks.0/codebook use %": 1.0, "größer": math.nan, "b": math.inf})
    logger.log(2, {"b": 2.0})
    logger.finish("done")
    first, second = rows(offline_runs(tmp_path)[0])
    assert first["blocks.0/codebook use %"] == 1.0
    assert math.isnan(float(first["größer"]))
    assert float(first["b"]) == math.inf
    assert second == {"b": 2.0, "step": 2}


def test_a_run_that_resumes_is_the_same_run_and_logs_no_step_twice(tmp_path):
    logger = begun(tmp_path)
    for step in (2, 4, 6):
        logger.log(step, {"loss": step})
    logger.finish("interrupted")
    other = begun(tmp_path, step=4)
    for step in (6, 8):
        other.log(step, {"loss": step})
    other.finish("done")
    first, second = offline_runs(tmp_path)
    assert [row["step"] for row in rows(first)] == [2, 4, 6]
    assert rows(second) == [{"loss": 8, "step": 8}]
    assert of_kind(first, "run")[0].run_id == of_kind(second, "run")[0].run_id


def test_a_run_from_the_beginning_is_another_run(tmp_path):
    begun(tmp_path).finish("failed")
    begun(tmp_path).finish("done")
    first, second = offline_runs(tmp_path)
    assert of_kind(first, "run")[0].run_id != of_kind(second, "run")[0].run_id


def test_without_an_account_the_error_says_what_to_do(tmp_path):
    info = RunInfo(out=tmp_path, name="run", config={}, environment={})
    with pytest.raises(InputError, match="log in with `wandb login`, or set mode='offline'"):
        WandbLogger().begin(info)


def test_without_wandb_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(DependencyError, match=r"pip install 'helix-train\[wandb\]'"):
        begun(tmp_path)
