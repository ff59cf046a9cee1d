"""The commands of `helix checkpoint`: what they print, write and end with."""

import fcntl
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from helix_kernel.checkpoint import Checkpoint, CheckpointManager, load, save
from helix_kernel.diagnosis.mending import install

WEIGHT = np.arange(2048.0, dtype=np.float32).reshape(2, 1024)


@pytest.fixture
def run(tmp_path):
    """A run of five steps: the loss is least at step 200, and not finite at step 300."""
    losses = {100: 3.0, 200: 1.0, 300: float("nan"), 400: 2.0, 500: 2.5}
    with CheckpointManager(tmp_path / "run/checkpoints", keep=None) as manager:
        for step, loss in losses.items():
            attributes = {
                "step": step,
                "metrics": {"loss": loss},
                "api": 1,
                "config": {"model": {"use": "acme:wide", "width": step // 100}},
                "components": {"layer/acme:wide": "3.1"},
            }
            manager.save(
                step, {"model": {"w": WEIGHT + step, "b": WEIGHT[0]}, "step": step}, attributes=attributes
            )
    return tmp_path / "run"


def step(run, number):
    return run / f"checkpoints/step-{number:08d}"


def names(run):
    return [int(path.name.partition("-")[2]) for path in sorted((run / "checkpoints").glob("step-*"))]


def flip(path, offset=0):
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(bytes(content))


def printed(outcome):
    code, out, err = outcome
    assert err == ""
    return code, json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


class TestList:
    def test_it_shows_steps_sizes_metrics_and_state(self, helix, run):
        code, out, err = helix("checkpoint", "list", run)
        lines = out.splitlines()
        assert (code, err) == (0, "")
        assert lines[0].split() == ["step", "on", "disk", "shared", "saved", "metrics", "state"]
        assert [line.split()[0] for line in lines[1:]] == [f"step-00000{n}00" for n in range(1, 6)]
        assert "loss 1 " in lines[2]
        assert lines[2].endswith("complete")

    def test_its_json_is_strict_and_says_the_same(self, helix, run):
        code, found = printed(helix("checkpoint", "list", run, "--json"))
        assert code == 0
        assert [entry["step"] for entry in found["steps"]] == [100, 200, 300, 400, 500]
        entry = found["steps"][2]
        assert entry["metrics"] == {"loss": "NaN"}
        assert entry["bytes"] == sum(path.stat().st_size for path in step(run, 300).iterdir())
        assert (entry["state"], entry["damage"]) == ("complete", [])

    def test_a_changed_byte_is_found_only_where_all_is_read(self, helix, run):
        flip(step(run, 400) / "data-00000.bin")
        assert printed(helix("checkpoint", "list", run, "--json"))[1]["steps"][3]["state"] == "complete"
        entry = printed(helix("checkpoint", "list", run, "--verify", "--json"))[1]["steps"][3]
        assert entry["state"] == "damaged"
        assert "array 'model/w'" in entry["damage"][0]

    def test_a_cut_file_is_found_in_any_case(self, helix, run):
        os.truncate(step(run, 400) / "data-00000.bin", 100)
        states = [entry["state"] for entry in printed(helix("checkpoint", "list", run, "--json"))[1]["steps"]]
        assert states == ["complete", "complete", "complete", "damaged", "complete"]

    def test_packs_that_steps_share_are_said(self, helix, tmp_path):
        with CheckpointManager(tmp_path / "run", incremental=True) as manager:
            for number in (1, 2):
                manager.save(number, {"frozen": WEIGHT, "w": np.float64(number)})
        entries = printed(helix("checkpoint", "list", tmp_path / "run", "--json"))[1]["steps"]
        assert all(8192 <= entry["shared_bytes"] < entry["bytes"] for entry in entries)


class TestVerify:
    def test_a_sound_run_ends_with_0(self, helix, run):
        code, out, _ = helix("checkpoint", "verify", run)
        assert code == 0
        assert out.count(": good\n") == 5

    def test_damage_ends_with_1_and_names_every_array(self, helix, run):
        pack = step(run, 400) / "data-00000.bin"
        flip(pack)
        flip(pack, 9000)
        code, found = printed(helix("checkpoint", "verify", run, "--json"))
        assert (code, found["good"]) == (1, False)
        bad = [entry for entry in found["steps"] if not entry["good"]]
        assert [entry["path"] for entry in bad] == [str(step(run, 400))]
        assert ["'model/w'" in bad[0]["damage"][0], "'model/b'" in bad[0]["damage"][1]] == [True, True]
        assert helix("checkpoint", "verify", step(run, 400))[0] == 1
        assert helix("checkpoint", "verify", step(run, 500))[0] == 0

    def test_damage_of_what_is_no_array_is_said(self, helix, run):
        flip(step(run, 400) / "data-00000.bin", 8192)  # the checksum behind the array's data
        flip(step(run, 500) / "manifest.json", 300)
        code, out, _ = helix("checkpoint", "verify", run)
        assert code == 1
        assert "what follows array 'model/w' at byte 8192" in out
        assert "manifest.json is truncated or was changed" in out

    @pytest.mark.parametrize("command", ["list", "verify", "inspect"])
    @pytest.mark.parametrize("path", ["nowhere", "run/checkpoints/step-00000009", "."])
    def test_nothing_there_is_wrong_input(self, helix, run, tmp_path, command, path):
        code, out, err = helix("checkpoint", command, tmp_path / path)
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert "Traceback" not in err


class TestInspect:
    def test_it_shows_what_is_needed_beside_what_is_installed(self, helix, run):
        code, out, _ = helix("checkpoint", "inspect", run)
        assert code == 0
        assert "plugin API       1           1 (helix-kernel" in out
        assert "layer/acme:wide  3.1         -" in out
        assert f"missing: {install('acme==3.1')}" in out
        assert "metrics.loss  2.5" in out
        assert "model.width  5" in out

    def test_its_json_says_the_same(self, helix, run):
        found = printed(helix("checkpoint", "inspect", step(run, 300), "--json"))[1]
        assert found["attributes"]["metrics"] == {"loss": "NaN"}
        assert [need["state"] for need in found["needs"]] == ["ok", "missing"]
        assert found["needs"][1]["command"] == install("acme==3.1")
        assert {array["name"]: len(array["sha256"]) for array in found["arrays"]} == {
            "model/b": 64,
            "model/w": 64,
        }


class TestDiff:
    def test_equal_checkpoints_end_with_0(self, helix, run):
        code, out, _ = helix("checkpoint", "diff", step(run, 500), run)
        assert (code, out.splitlines()[-1]) == (0, "They hold the same.")

    def test_different_ones_end_with_1_and_say_how_far_arrays_moved(self, helix, run):
        code, out, _ = helix("checkpoint", "diff", step(run, 100), step(run, 200))
        assert code == 1
        assert "model.width  1      2" in out
        relative = 100 * np.sqrt(2048) / np.linalg.norm(WEIGHT + 100)
        rows = [line.split() for line in out.splitlines()]
        assert ["model/w", "4525", f"{relative:.4g}", "100", "2048", "of", "2048"] in rows

    def test_of_two_steps_what_did_not_change_is_not_read(self, helix, run):
        pack = step(run, 100) / "data-00000.bin"
        flip(pack, 9000)  # of model/b, the same in both
        assert helix("checkpoint", "diff", step(run, 100), step(run, 200))[0] == 1
        flip(pack)
        code, _, err = helix("checkpoint", "diff", step(run, 100), step(run, 200))
        assert code == 2
        assert "array 'model/w'" in err

    def test_its_json_is_strict(self, helix, run):
        code, found = printed(helix("checkpoint", "diff", step(run, 200), step(run, 300), "--json"))
        assert (code, found["equal"]) == (1, False)
        assert found["attributes"] == {"step": [200, 300], "metrics.loss": [1.0, "NaN"]}
        assert found["changes"][0]["largest"] == 100


class TestExportAndConvert:
    @pytest.mark.parametrize("name", ["x.safetensors", "x.zarr", "x.zip"])
    def test_there_and_back_is_the_same(self, helix, run, tmp_path, name):
        code, found = printed(helix("checkpoint", "export", run, tmp_path / name, "--json"))
        assert (code, found["arrays"], found["source"]) == (0, 2, str(step(run, 500)))
        code, found = printed(helix("checkpoint", "convert", tmp_path / name, tmp_path / "back", "--json"))
        assert (code, found["arrays"]) == (0, 2)
        assert helix("checkpoint", "diff", tmp_path / "back", run)[0] == 0

    def test_options_choose_the_form_and_the_part(self, helix, run, tmp_path):
        out = tmp_path / "weights"
        code, text, _ = helix("checkpoint", "export", run, out, "--format", "zarr", "--only", "model")
        assert (code, text) == (0, f"{out}: 2 arrays, 12.0 KiB, as zarr\n")
        assert {path.name for path in out.iterdir()} == {"zarr.json", "w", "b"}

    def test_ties_are_said(self, helix, tmp_path):
        save(tmp_path / "step", {"a": WEIGHT, "b": WEIGHT})
        code, out, _ = helix("checkpoint", "export", tmp_path / "step", tmp_path / "x.zarr")
        assert (code, out.splitlines()[1]) == (0, "  b is a, and stored once")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("export", "RUN", "x.npz"), "let it end in one of .safetensors, .zarr, .zip"),
            (("export", "RUN", "x.zarr", "--only", "modle"), "Did you mean 'model'?"),
            (("export", "RUN", "x", "--format", "npz"), "npz"),
            (("convert", "nowhere", "x"), "does not exist"),
            (("convert", "RUN", "x"), "nothing to convert"),
            (("diff", "RUN", "nowhere"), "does not exist"),
            (("prune", "RUN"), "--last is missing"),
            (("prune", "RUN", "--last", "0"), "allowed is at least 1"),
            (("prune", "RUN", "--last", "1", "--best", "2"), "best is 2 and metric is None"),
            (("prune", "RUN", "--last", "1", "--mode", "most"), "most"),
        ],
    )
    def test_wrong_input_is_one_line_and_2(self, helix, run, tmp_path, monkeypatch, arguments, message):
        monkeypatch.chdir(tmp_path)
        before = sorted(tmp_path.rglob("*"))
        code, out, err = helix("checkpoint", *(run if word == "RUN" else word for word in arguments))
        assert (code, out) == (2, "")
        assert message in err
        assert "Traceback" not in err
        assert sorted(tmp_path.rglob("*")) == before


class TestPrune:
    @pytest.mark.parametrize(
        ("options", "kept"),
        [
            (("--last", "2"), [400, 500]),
            (("--last", "1", "--every", "200"), [200, 400, 500]),
            (("--last", "1", "--best", "1", "--metric", "loss"), [200, 500]),
            (("--last", "1", "--best", "1", "--metric", "loss", "--mode", "max"), [100, 500]),
            (("--last", "9"), [100, 200, 300, 400, 500]),
        ],
    )
    def test_what_no_rule_keeps_goes_and_a_dry_run_says_so_first(self, helix, run, options, kept):
        removed = [number for number in names(run) if number not in kept]
        code, found = printed(helix("checkpoint", "prune", run, *options, "--dry-run", "--json"))
        assert (code, found["removed"], found["kept"], found["dry_run"]) == (0, removed, kept, True)
        assert len(names(run)) == 5
        code, out, _ = helix("checkpoint", "prune", run, *options)
        assert code == 0
        assert out.splitlines()[:-1] == [f"removed step {number}" for number in removed]
        assert names(run) == kept
        assert load(step(run, 500))["step"] == 500

    def test_the_newest_good_one_stays_whatever_is_newer(self, helix, run):
        for number in (300, 400, 500):
            flip(step(run, number) / "data-00000.bin")
        assert helix("checkpoint", "prune", run, "--last", "1")[0] == 0
        assert 200 in names(run)
        assert CheckpointManager(run / "checkpoints").latest() == 200

    def test_where_none_is_good_none_goes(self, helix, run):
        for number in names(run):
            flip(step(run, number) / "data-00000.bin")
        code, _, err = helix("checkpoint", "prune", run, "--last", "1")
        assert code == 2
        assert "has no good step, so none of its steps may go" in err
        assert len(names(run)) == 5

    def test_a_run_that_is_being_written_is_left_alone(self, helix, run):
        with (run / "checkpoints/.writer.lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            code, _, err = helix("checkpoint", "prune", run, "--last", "1")
            assert printed(helix("checkpoint", "prune", run, "--last", "4", "--dry-run", "--json"))[0] == 0
        assert code == 2
        assert "has a writer already" in err
        assert len(names(run)) == 5

    def test_one_checkpoint_is_no_run(self, helix, run):
        code, _, err = helix("checkpoint", "prune", step(run, 100), "--last", "1")
        assert code == 2
        assert "is one checkpoint; prune takes the directory of a run" in err


@pytest.mark.parametrize("command", ["list", "verify"])
def test_a_step_that_retention_removes_meanwhile_is_left_out(helix, run, monkeypatch, command):
    opened = Checkpoint.open

    def open_late(path):
        if path == step(run, 300):
            shutil.rmtree(path)
        return opened(path)

    monkeypatch.setattr(Checkpoint, "open", open_late)
    code, found = printed(helix("checkpoint", command, run, "--json"))
    assert code == 0
    assert [entry["path"] for entry in found["steps"]] == [str(step(run, n)) for n in (100, 200, 400, 500)]


@pytest.mark.parametrize("command", ["list", "verify", "inspect", "diff"])
@pytest.mark.parametrize("absent", ["torch", "zarr", "rich", "cyclopts"])
def test_looking_imports_nothing_heavy(run, command, absent):
    words = ["checkpoint", command, str(run), *([str(run)] if command == "diff" else [])]
    code = f"""
import atexit, sys
from helix_kernel.cli import main
atexit.register(lambda: {absent!r} in sys.modules and __import__("os")._exit(9))
main({words!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_digests_are_the_checkpoints_own(helix, run):
    found = printed(helix("checkpoint", "inspect", run, "--json"))[1]
    with Checkpoint.open(step(run, 500)) as checkpoint:
        assert {array["name"]: array["digest"] for array in found["arrays"]} == {
            name: checkpoint.digest(name) for name in checkpoint.arrays
        }
