"""The commands `helix report`, `helix runs` and `helix diff`, as a person or a script calls them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tomli_w

from helix_kernel.checkpoint import CheckpointManager
from helix_kernel.cli import main
from helix_train.run_file import RunFile


@pytest.fixture
def helix(installed, capsys, tmp_path, monkeypatch):
    """Run a command; returns its exit code, standard output and standard error."""
    monkeypatch.setenv("HELIX_CACHE_DIR", str(tmp_path / "cache"))

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return ended.value.code, *capsys.readouterr()

    return run


def printed(outcome):
    code, out, err = outcome
    assert (code, err) == (0, "")
    return json.loads(out, parse_constant=pytest.fail)


def make_run(out, *, lr=0.1, loss=2.0, steps=4, status="done", held_out=True, d_model=8, started="a"):
    """A run's directory as the trainer leaves it: training losses fall from loss + steps to loss."""
    out.mkdir(parents=True)
    config = {
        "model": {"use": "toy-lm:toy", "d_model": d_model},
        "optimizer": {"use": "helix-train:adamw", "lr": lr},
        "trainer": {"steps": steps, "out": str(out)},
    }
    (out / "config.toml").write_text(tomli_w.dumps(config))
    lines = [
        {"step": step, "loss": loss + steps - step, "bits_per_byte": 2.0 * (loss + steps - step)}
        for step in range(1, steps + 1)
    ]
    (out / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    times = [{"step": line["step"], "seconds": 2.0, "tokens_per_second": 50.0} for line in lines]
    (out / "timing.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in times))
    provenance = {
        "config": config,
        "components": {"layer/toy-lm:toy": "1.0"},
        "environment": {"torch": "2.6"},
    }
    file = RunFile.begin(out, step=0, steps=steps, provenance=provenance, flops_per_step=3.0)
    evaluation = SimpleNamespace(loss=loss + 0.5, bits_per_byte=2 * loss, accuracy=None) if held_out else None
    file.end(status, step=steps, evaluation=evaluation)
    document = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**document, "started_at": started, "wall_time": 8.5}))
    return out


@pytest.fixture
def two(tmp_path):
    """Two runs below one folder; the second has the lower loss, and began first."""
    first = make_run(tmp_path / "runs/b", lr=0.1, loss=2.0, started="2026-01-02")
    second = make_run(tmp_path / "runs/deep/a", lr=0.2, loss=1.0, steps=6, started="2026-01-01")
    return first, second


class TestReport:
    def test_it_writes_the_file_and_says_where(self, helix, two):
        code, out, err = helix("report", two[0])
        assert (code, out, err) == (0, f"{two[0]}/report.html\n", "")
        assert (two[0] / "report.html").read_text().startswith("<!doctype html>")

    def test_its_json_has_the_size(self, helix, two):
        found = printed(helix("report", two[0], "--json"))
        assert found["bytes"] == (two[0] / "report.html").stat().st_size

    def test_it_opens_a_browser_only_when_asked(self, helix, two, monkeypatch):
        opened = []
        monkeypatch.setattr("webbrowser.open", opened.append)
        helix("report", two[0])
        assert opened == []
        helix("report", two[0], "--open")
        assert opened == [(two[0] / "report.html").as_uri()]

    def test_what_is_no_run_is_wrong_input(self, helix, tmp_path):
        code, out, err = helix("report", tmp_path)
        assert (code, out) == (2, "")
        assert "name the directory of a run (trainer.out)" in err


class TestRuns:
    def test_a_line_a_run_and_what_they_differ_in(self, helix, two, tmp_path):
        code, out, err = helix("runs", tmp_path / "runs")
        assert (code, err) == (0, "")
        head, *lines = out.splitlines()
        assert head.split() == [
            *(
                "run",
                "status",
                "step",
                "loss",
                "held",
                "out",
                "bits/byte",
                "time",
                "tokens/s",
                "differs",
                "in",
            )
        ]
        assert [line.split() for line in lines] == [
            [str(two[1]), "done", "6/6", "1", "1.5", "2", "8.5", "s", "50", "lr=0.2", "steps=6"],
            [str(two[0]), "done", "4/4", "2", "2.5", "4", "8.5", "s", "50", "lr=0.1", "steps=4"],
        ]

    def test_the_folder_is_runs_if_none_is_named(self, helix, two, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        found = printed(helix("runs", "--json"))
        assert [run["path"] for run in found["runs"]] == ["runs/deep/a", "runs/b"]

    def test_its_json_has_every_number_and_difference(self, helix, two, tmp_path):
        (found, _) = printed(helix("runs", tmp_path, "--json"))["runs"]
        assert found == {
            "path": str(two[1]),
            "status": "done",
            "started_at": "2026-01-01",
            "step": 6,
            "steps": 6,
            "loss": 1.0,
            "held_out": 1.5,
            "bits_per_byte": 2.0,
            "accuracy": None,
            "wall_time": 8.5,
            "tokens_per_second": 50.0,
            "problem": None,
            "differs": {"optimizer.lr": 0.2, "trainer.steps": 6},
        }

    @pytest.mark.parametrize(
        ("sort", "order"),
        [
            ("started", "cba"),
            ("name", "abc"),
            ("loss", "cab"),
            ("step", "bac"),
            ("status", "abc"),
            ("bits-per-byte", "cba"),
        ],
    )
    def test_they_come_in_the_order_that_is_asked_for(self, helix, tmp_path, sort, order):
        make_run(tmp_path / "a", loss=3.0, steps=4, held_out=False, started="3")
        make_run(tmp_path / "b", loss=2.9, steps=2, started="2")
        make_run(tmp_path / "c", loss=1.0, steps=5, status="failed", started="1")
        found = printed(helix("runs", tmp_path, "--sort", sort, "--json"))["runs"]
        assert "".join(run["path"][-1] for run in found) == order

    def test_an_order_that_does_not_exist_is_wrong_input(self, helix, two, tmp_path):
        assert helix("runs", tmp_path, "--sort", "mood")[0] == 2

    def test_many_differences_are_only_counted(self, helix, tmp_path):
        for name in "ab":
            out = make_run(tmp_path / name)
            document = json.loads((out / "run.json").read_text())
            document["config"]["model"] |= {f"option_{number}": name for number in range(7)}
            (out / "run.json").write_text(json.dumps(document))
        out = helix("runs", tmp_path)[1]
        assert "differs in" not in out
        assert "7 options differ: helix runs compare" in out

    def test_broken_and_foreign_folders_are_borne(self, helix, two, tmp_path):
        folder = tmp_path / "runs"
        (folder / "foreign").mkdir()
        (folder / "foreign/run.json").write_text('{"mine": true}')
        (folder / "foreign/metrics.jsonl").write_text("x")
        (folder / ".hidden").mkdir()
        make_run(folder / ".hidden/run")
        make_run(two[0] / "checkpoints/inner")
        broken = make_run(folder / "broken")
        (broken / "run.json").write_text("{")
        half = make_run(folder / "half")
        (half / "metrics.jsonl").write_bytes(b"\xff\xfe not records \x00")
        (half / "timing.jsonl").unlink()
        (folder / "loop").symlink_to(folder)
        code, out, err = helix("runs", folder)
        assert code == 0
        assert [line.split()[:2] for line in out.splitlines()[1:]] == [
            [str(two[1]), "done"],
            [str(two[0]), "done"],
            [str(half), "done"],
            [str(broken), "damaged"],
        ]
        assert f"note: {broken}/run.json does not describe a run" in err

    def test_a_run_of_a_folder_without_a_run_file_is_listed(self, helix, two, tmp_path):
        (two[0] / "run.json").unlink()
        found = {run["path"]: run for run in printed(helix("runs", tmp_path, "--json"))["runs"]}
        assert found[str(two[0])] | {"differs": {}} == found[str(two[0])] | {
            "status": "done",
            "step": 4,
            "loss": 2.0,
            "held_out": None,
            "wall_time": 8.0,
            "differs": {},
        }

    def test_a_run_that_was_killed_has_died(self, helix, tmp_path):
        out = make_run(tmp_path / "killed")
        code = (
            "import os, pathlib, signal\n"
            "from helix_train.run_file import RunFile\n"
            f"RunFile.begin(pathlib.Path({str(out)!r}), step=0, steps=9, provenance={{}})\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
        (found,) = printed(helix("runs", tmp_path, "--json"))["runs"]
        assert found["status"] == "died"

    def test_a_folder_without_runs_says_so(self, helix, tmp_path):
        (tmp_path / "empty").mkdir()
        assert helix("runs", tmp_path / "empty")[:2] == (0, f"no runs in {tmp_path / 'empty'}\n")

    def test_a_folder_that_is_not_there_is_wrong_input(self, helix, tmp_path):
        code, _, err = helix("runs", tmp_path / "nothing")
        assert code == 2
        assert "is no folder; name one that holds runs" in err


class TestCompare:
    def test_options_results_and_losses_stand_side_by_side(self, helix, two):
        found = printed(helix("runs", "compare", *two, "--json"))
        assert found["runs"] == [str(path) for path in two]
        assert found["options"] == {"optimizer.lr": [0.1, 0.2], "trainer.steps": [4, 6]}
        assert found["results"]["held_out_loss"] == [2.5, 1.5]
        assert found["results"]["flops"] == [12.0, 18.0]
        assert found["unit"] == "bits_per_byte"
        assert found["losses"] == {
            "1": [10.0, 12.0],
            "2": [8.0, 10.0],
            "3": [6.0, 8.0],
            "4": [4.0, 6.0],
        }

    def test_people_get_three_tables(self, helix, two):
        _, out, _ = helix("runs", "compare", *two)
        titles = [block.split()[0] for block in out.split("\n\n") if block.strip()]
        assert titles == ["option", "result", "bits"]
        assert "trainer.out" not in out

    def test_long_runs_are_compared_at_ten_steps_from_the_first_to_the_last(self, helix, tmp_path):
        pair = [make_run(tmp_path / name, steps=200) for name in "ab"]
        steps = list(map(int, printed(helix("runs", "compare", *pair, "--json"))["losses"]))
        assert len(steps) == 10
        assert (steps[0], steps[-1]) == (1, 200)

    def test_runs_without_common_steps_have_no_losses_to_compare(self, helix, two):
        (two[0] / "metrics.jsonl").write_text('{"step": 77, "loss": 1.0}\n')
        found = printed(helix("runs", "compare", *two, "--json"))
        assert (found["unit"], found["losses"]) == ("loss", {})

    @pytest.mark.parametrize("n_runs", [0, 1])
    def test_fewer_than_two_are_wrong_input(self, helix, two, n_runs):
        code, _, err = helix("runs", "compare", *two[:n_runs])
        assert code == 2
        assert "takes the directories of two runs or more" in err


class TestDiff:
    @pytest.fixture
    def config(self, table, tmp_path):
        def write(name, **sections):
            path = tmp_path / f"{name}.toml"
            path.write_text(tomli_w.dumps({**table, **sections}))
            return path

        return write

    @pytest.fixture
    def steps(self, tmp_path):
        with CheckpointManager(tmp_path / "saved/checkpoints") as manager:
            for step in (1, 2):
                attributes = {"step": step, "config": {"model": {"use": "toy-lm:toy", "d_model": 8}}}
                manager.save(step, {"w": np.full(4, float(step))}, attributes=attributes)
            return [manager.path(step) for step in (1, 2)]

    def test_configs_are_compared_with_their_defaults(self, helix, config):
        spelled_out = config("a", model={"use": "toy-lm:toy", "d_model": 8, "dropout": 0.0})
        found = printed(helix("diff", config("b"), spelled_out, "--json"))
        assert found["equal"] is True
        assert found["differences"] == {}
        assert [found[side]["kind"] for side in ("first", "second")] == ["config", "config"]

    def test_options_are_changed_added_or_removed(self, helix, config):
        other = config("b", model={"use": "stateless"}, optimizer={"use": "adamw", "lr": 0.5})
        found = printed(helix("diff", config("a"), other, "--json"))["differences"]
        assert found["config"]["changed"] == {
            "model.use": ["toy-lm:toy", "toy-lm:stateless"],
            "optimizer.lr": [0.1, 0.5],
        }
        assert found["config"]["removed"]["model.d_model"] == 8
        assert found["config"]["added"] == {}
        assert found["components"]["added"] == {"layer/toy-lm:stateless": "1.0"}

    def test_people_get_both_values_and_an_exit_code_of_zero(self, helix, config):
        other = config("b", optimizer={"use": "adamw", "lr": 0.123456789})
        code, out, _ = helix("diff", config("a"), other)
        assert code == 0
        assert ["optimizer.lr", "0.1", "0.123457"] in [line.split() for line in out.splitlines()]

    def test_numbers_that_are_almost_the_same_have_the_digits_that_differ(self, helix, config):
        one = config("a", optimizer={"use": "adamw", "lr": 0.123456789})
        other = config("b", optimizer={"use": "adamw", "lr": 0.123456788})
        out = helix("diff", one, other)[1]
        assert ["optimizer.lr", "0.123456789", "0.123456788"] in [line.split() for line in out.splitlines()]

    def test_runs_differ_in_config_and_results(self, helix, two):
        found = printed(helix("diff", *two, "--json"))
        assert found["first"] == {"kind": "run", "path": str(two[0])}
        assert found["differences"].keys() == {"config", "results"}
        assert found["differences"]["results"]["changed"]["loss"] == [2.5, 1.5]
        assert f"helix diff {two[0]}/checkpoints {two[1]}/checkpoints" in helix("diff", *two)[1]

    def test_checkpoints_are_compared_array_by_array_with_an_exit_code_of_zero(self, helix, steps):
        found = printed(helix("diff", *steps, "--json"))
        assert found["equal"] is False
        assert [change["name"] for change in found["changes"]] == ["w"]

    def test_a_folder_of_checkpoints_means_the_newest(self, helix, steps):
        assert printed(helix("diff", steps[1], steps[1].parent, "--json"))["equal"] is True

    def test_of_a_run_and_a_checkpoint_what_describes_both_is_compared(self, helix, two, steps):
        found = printed(helix("diff", two[0], steps[0], "--json"))
        assert [found[side]["kind"] for side in ("first", "second")] == ["run", "checkpoint"]
        assert found["differences"]["config"]["removed"].keys() == {
            "optimizer.use",
            "optimizer.lr",
            "trainer.steps",
            "trainer.out",
        }

    def test_equal_things_are_said_to_be(self, helix, config):
        assert "They tell the same." in helix("diff", config("a"), config("a"))[1]

    @pytest.mark.parametrize("name", ["nothing", "."])
    def test_anything_else_is_wrong_input(self, helix, tmp_path, name):
        code, _, err = helix("diff", tmp_path / name, tmp_path / name)
        assert code == 2
        assert "allowed are a config file (TOML), the directory of a run, and a checkpoint" in err

    def test_a_file_that_is_no_config_is_wrong_input(self, helix, tmp_path):
        (tmp_path / "x.toml").write_text("= nonsense")
        code, _, err = helix("diff", tmp_path / "x.toml", tmp_path / "x.toml")
        assert code == 2
        assert "not valid TOML" in err
