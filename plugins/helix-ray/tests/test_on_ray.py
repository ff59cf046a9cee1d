"""Runs and sweeps on a Ray of this machine, which is started once for all of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from helix_kernel.checkpoint import load
from helix_kernel.cli import main

TOY = Path(__file__).parent / "toy"
pytest.importorskip("ray.train", exc_type=ImportError, reason="needs pip install 'ray[train,tune]'")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]


@pytest.fixture(scope="module")
def ray(folder, tmp_path_factory):
    """A Ray with three CPUs, whose workers find the toy plugin; nothing of it is left afterwards."""
    import ray

    from helix_ray.cluster import connected

    plugins = tmp_path_factory.mktemp("plugins")
    information = plugins / "toy_killer-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-killer\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[helix_kernel.v1]\nkiller = toy_killer\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(TOY), str(plugins)]))
        patch.syspath_prepend(str(TOY))
        patch.syspath_prepend(str(plugins))
        with connected("local", cpus=3):
            session = ray._private.worker._global_node.get_session_dir_path()
            yield ray
    alive = subprocess.run(["pgrep", "-f", session], capture_output=True, text=True, check=False).stdout
    assert alive == ""


@pytest.fixture(scope="module")
def torchrun(folder):
    """The same config trained by two processes that torchrun starts."""
    command = "-m torch.distributed.run --standalone --nproc-per-node=2 -m helix_kernel.cli train config.toml"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, *command.split(), "trainer.out=torchrun"], cwd=folder, env=environment, check=True
    )
    return folder / "torchrun"


def helix(*arguments, code=0):
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == code


def records(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def weights(out, step=8):
    """Return the arrays of a checkpoint's model and optimizer by path."""
    saved = load(out / "checkpoints" / f"step-{step:08d}")
    return dict(leaves({name: saved[name] for name in ("model", "optimizer")}))


def leaves(value, path=""):
    if isinstance(value, dict):
        for name, item in value.items():
            yield from leaves(item, f"{path}.{name}")
    elif hasattr(value, "shape"):
        yield path, np.asarray(value)


def assert_same(left, right):
    assert records(left) == records(right)
    ours, theirs = weights(left), weights(right)
    assert ours.keys() == theirs.keys()
    assert len(ours) > 10
    assert [name for name, value in ours.items() if value.tobytes() != theirs[name].tobytes()] == []


def test_two_workers_train_what_torchrun_trains_to_the_bit(ray, folder, torchrun, capsys):
    helix("config", "lock", "config.toml")
    capsys.readouterr()
    helix("ray", "train", "config.toml", "trainer.out=two", "--workers", "2", "--locked", "--json")
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["step"] == 8
    assert outcome["checkpoint"] == str(folder / "two" / "checkpoints" / "step-00000008")
    assert outcome["validation_loss"] == records(folder / "two")[-1]["validation_loss"]
    assert_same(folder / "two", torchrun)


def test_a_worker_killed_in_mid_run_loses_nothing(ray, folder, torchrun, capsys):
    killed = folder / "killed-worker"
    callback = f'trainer.callbacks=[{{ use = "killer", after = 5, file = "{killed}" }}]'
    helix("ray", "train", "config.toml", "trainer.out=killed", callback, "--workers", "2", "--json")
    assert killed.exists()
    assert json.loads(capsys.readouterr().out)["step"] == 8
    assert_same(folder / "killed", torchrun)


def test_ctrl_c_at_the_driver_leaves_a_checkpoint_to_go_on_from(ray, folder, capsys):
    out = folder / "interrupted"
    options = ["trainer.out=interrupted", "trainer.checkpoint_every=1000000", "--workers", "2"]

    def press_when_it_trains():
        while not (out / "metrics.jsonl").exists() or not records(out):
            time.sleep(0.05)
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=press_when_it_trains, daemon=True).start()
    helix("ray", "train", "config.toml", *options, "trainer.steps=1000000", code=130)
    told = capsys.readouterr().err
    assert "of 1000000 steps" in told
    assert "trainer.resume=true" in told
    (saved,) = (out / "checkpoints").glob("step-*")
    assert json.loads((out / "run.json").read_text())["status"] == "interrupted"
    last = int(saved.name.removeprefix("step-")) + 2
    helix("ray", "train", "config.toml", *options, f"trainer.steps={last}", "trainer.resume=true", "--json")
    assert json.loads(capsys.readouterr().out)["step"] == last
    assert [record["step"] for record in records(out) if "loss" in record] == list(range(1, last + 1))


def test_a_run_is_not_written_over_and_one_that_fails_says_why(ray, folder, capsys):
    (folder / "old" / "checkpoints" / "step-00000002").mkdir(parents=True)
    helix("ray", "train", "config.toml", "trainer.out=old", code=2)
    assert "holds checkpoints already" in capsys.readouterr().err
    helix(
        "ray", "train", "config.toml", "trainer.out=bad", "optimizer.lr=1e30", "--max-failures", "0", code=1
    )
    told = capsys.readouterr().err
    assert "worker 0:" in told
    assert "Lower optimizer.lr" in told


def test_a_sweep_lists_every_trial_and_the_command_of_the_best(ray, folder, capsys):
    search = "optimizer.lr=grid(0.02, 1e30, 1e-6, 0.01)"
    helix("ray", "tune", "config.toml", "trainer.out=sweep", "--search", search, "--json")
    found = json.loads(capsys.readouterr().out)
    assert [trial["status"] for trial in found["trials"]] == ["done", "failed", "done", "done"]
    assert "Lower optimizer.lr" in found["trials"][1]["error"]
    losses = {}
    for number in (0, 2, 3):
        out = folder / "sweep" / f"trial-{number:04d}"
        losses[number] = records(out)[-1]["validation_loss"]
        assert "step 8/8" in (out / "progress.txt").read_text()
    assert {number: found["trials"][number]["metric"] for number in losses} == losses
    assert found["best"] == min(losses, key=losses.get) == 0
    assert found["command"] == "helix train config.toml trainer.out=sweep optimizer.lr=0.02"


def test_asha_stops_a_trial_that_is_behind(ray, folder, capsys):
    options = ["trainer.steps=40", "trainer.validate_every=1", "trainer.checkpoint_every=40"]
    search = "optimizer.lr=grid(0.02, 1e-7, 1e-8, 1e-9)"
    out = "trainer.out=asha"
    helix("ray", "tune", "config.toml", out, *options, "--search", search, "--scheduler", "asha")
    shown = capsys.readouterr().out
    table = {line.split()[0]: line.split() for line in shown.splitlines()[1:5]}
    assert table["0"][-1] == "done"
    stopped = [number for number in "123" if table[number][-1] == "stopped"]
    assert stopped
    for number in ("0", *stopped):
        told = json.loads((folder / "asha" / f"trial-000{number}" / "run.json").read_text())
        assert told["status"] == ("done" if number == "0" else "interrupted")
    assert "helix train config.toml trainer.out=asha" in shown
