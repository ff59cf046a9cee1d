"""`helix bench ops`: what it asks for, prints and writes, and that its table sets every goal there is."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from helix_cpu.bench import cases, machine, report
from helix_cpu.bench.contest import OURS, Contest, Entry, Goal, Row, times_faster
from helix_cpu.commands import bench
from helix_kernel.errors import InputError

GOALS = {
    ("selective_scan", "forward", "transformers", 100),
    ("selective_scan", "forward", "ggml", 20),
    ("selective_scan", "forward", "jax.lax.scan", 5),
    ("selective_scan", "forward", "port bound", 60),
    ("selective_scan", "forward, AVX2 alone", "transformers", 50),
    ("selective_scan", "forward + backward", "transformers", 1000),
    ("selective_scan", "forward + backward", "mambapy", 90),
    ("selective_scan", "forward + backward", "own forward: backward takes", 2.2),
    ("selective_scan", "forward + backward", "memory", 6),
    ("selective_scan", "decoding step", "transformers", 8),
    ("selective_scan", "decoding step", "Python and ctypes", 8),
    ("selective_scan", "forward, two threads", "one thread", 1.8),
    ("ssd_scan", "forward", "transformers", 15),
    ("ssd_scan", "forward", "ggml", 5),
    ("ssd_scan", "forward + backward", "transformers", 15),
    ("ssd_scan", "forward, two threads", "one thread", 1.8),
    ("long_conv", "forward", "torch.fft", 6),
    ("long_conv", "forward", "torch.fft in blocks", 4),
    ("causal_conv1d", "forward with silu", "copy", 1.5),
    ("rms_norm", "forward with gate", "copy", 2),
    ("gla", "forward", "fla naive", 30),
    ("gated_delta_rule", "forward", "fla naive", 30),
    ("rwkv7", "forward", "fla naive", 30),
    ("transformers", "prefill of Mamba 130M in transformers, patched", "transformers", 4),
}


@pytest.fixture
def small(monkeypatch):
    """A table of two contests that take no time."""

    def contest(op):
        contestants = {OURS: lambda: Entry(lambda: None), "peer": lambda: Entry(lambda: None)}
        return Contest(op, "forward", "(1,)", lambda: contestants, (times_faster("peer", 0.001),))

    monkeypatch.setattr(cases, "contests", lambda _threads: [contest("gla"), contest("rwkv7")])


def test_every_goal_stands_in_the_table(monkeypatch):
    monkeypatch.setattr(cases, "has_amx", lambda: False)
    set_ = {
        (contest.op, contest.title, line.against, line.goal.limit)
        for contest in cases.contests(1)
        for line in contest.lines
        if line.goal is not None
    }
    assert set_ == GOALS


def test_a_processor_with_amx_has_a_goal_more(monkeypatch):
    monkeypatch.setattr(cases, "has_amx", lambda: True)
    (line,) = cases.ssd_scan_in_bfloat16((1, 8, 2, 4, 4)).lines
    assert line.goal == Goal(50, at_least=True)


def test_it_prints_where_and_what_it_measured(small, capsys):
    bench("ops", ops=["gla"], rounds=1)
    shown = capsys.readouterr().out
    for fact in (
        machine.cpu_model(),
        "instruction set: ",
        "`helix bench ops --ops gla --threads 1 --rounds 1`",
    ):
        assert fact in shown
    (row,) = [line for line in shown.splitlines() if "peer" in line]
    assert row.startswith("| gla, forward | (1,) | ")
    assert row.endswith(" | ≥ 0.001× | yes |")  # noqa: RUF001 - the sign that is meant


def test_json_is_one_object(small, capsys):
    bench("ops", rounds=1, json=True)
    told = json.loads(capsys.readouterr().out)
    assert [row["op"] for row in told["rows"]] == ["gla", "rwkv7"]
    assert told["rows"][0]["met"] is True


def test_the_table_can_be_written(small, tmp_path, capsys):
    bench("ops", rounds=1, write=tmp_path / "new" / "cpu.md")
    written = (tmp_path / "new" / "cpu.md").read_text()
    assert written.startswith("# Ops on the CPU\n")
    assert capsys.readouterr().out.rstrip() in written
    assert written.endswith(report.NOTES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ops": ["gal"]}, r"--ops gal: .*allowed is \['gla', 'rwkv7'\]\. Did you mean 'gla'\?"),
        ({"threads": 0}, "--threads is 0, allowed is >= 1"),
        ({"rounds": -1}, "--rounds is -1, allowed is >= 1"),
    ],
)
def test_wrong_options_are_refused(small, options, message):
    with pytest.raises(InputError, match=message):
        bench("ops", **options)


def test_a_patched_transformers_is_no_peer(small, monkeypatch):
    monkeypatch.setenv("HELIX_CPU_PATCH_TRANSFORMERS", "1")
    with pytest.raises(InputError, match="unset it to compare"):
        bench("ops")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(1.5, "1.5 s"), (0.01234, "12.3 ms"), (4.2e-6, "4.2 µs"), (123.4, "123 s"), (None, "")],
)
def test_durations_are_told_in_the_unit_that_suits_them(seconds, shown):
    assert report.duration(seconds) == shown


def test_a_missed_goal_and_an_absent_peer_catch_the_eye():
    missed = Row("gla", "forward", "(1,)", "peer", 1.0, 2.0, 2.0, "x", Goal(3, at_least=True))
    absent = Row(
        "gla", "forward", "(1,)", "peer", 1.0, None, None, "x", Goal(3, at_least=True), "absent: pip"
    )
    assert report.lines([missed]).endswith("| 2x | ≥ 3x | **no** |")
    assert report.lines([absent]).endswith("| absent: pip | ≥ 3x |  |")


@pytest.mark.slow
def test_the_command_runs():
    program = "import sys; from helix_kernel.cli import main; sys.exit(main())"
    words = ["bench", "ops", "--ops", "rms_norm", "--rounds", "1", "--json"]
    command = [sys.executable, "-c", program, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout)["rows"]
    assert [row["against"] for row in rows] == ["copy", "transformers"]
    assert all(row["value"] > 0 for row in rows)
