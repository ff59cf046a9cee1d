"""The walk past one process: torchrun, a rank killed in mid-run, and what one process makes of the result."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from helix_kernel.checkpoint import load
from helix_kernel.nesting import flatten

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "docs/examples/ssm-byte-lm.toml"
SMALL = [
    "model.d_model=16",
    "model.n_layers=1",
    "data.seq_len=32",
    "data.batch_size=2",
    "data.validation_fraction=0.001",
    "trainer.log_every=1",
    "trainer.checkpoint_every=10",
    "trainer.keep=9",
]
pytestmark = pytest.mark.slow


def torchrun(*arguments: object, restarts: int = 0) -> subprocess.Popen[str]:
    """Start ``helix train`` of the example on two ranks."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [f"--max-restarts={restarts}", "-m", "helix_kernel.cli", "train", str(EXAMPLE), *SMALL]
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def helix(*arguments: object) -> str:
    command = [sys.executable, "-m", "helix_kernel.cli", *map(str, arguments)]
    shown = subprocess.run(command, capture_output=True, check=True, cwd=ROOT).stdout
    return shown.decode("utf-8", "replace")


def finished(process: subprocess.Popen[str]) -> str:
    shown, _ = process.communicate(timeout=240)
    assert process.returncode == 0, shown
    return shown


def records(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def children(pid: int) -> list[int]:
    """Return the processes that a process has started, in the order of their start."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="finds the ranks in /proc")
@pytest.mark.parametrize(("parallel", "killed"), [("ddp", 0), ("fsdp2", 1)])
def test_a_rank_that_dies_costs_nothing_but_time(tmp_path, parallel, killed):
    options = [f"trainer.parallel={parallel}", "trainer.resume=auto", "trainer.steps=60"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finished(torchrun(*options, f"trainer.out={whole}"))
    process = torchrun(*options, f"trainer.out={broken}", restarts=1)
    wait_for(broken / "checkpoints/step-00000020", process)
    os.kill(children(process.pid)[killed], signal.SIGKILL)
    shown = finished(process)
    assert "resuming from" in shown
    assert records(broken) == records(whole)
    last = "checkpoints/step-00000060"
    expected, found = (flatten(load(out / last)) for out in (whole, broken))
    assert found.keys() == expected.keys()
    for name in expected:
        assert np.array_equal(found[name], expected[name]), name


def test_a_checkpoint_of_two_ranks_is_evaluated_continued_and_sampled_by_one_process(tmp_path):
    out = tmp_path / "run"
    shown = finished(torchrun("trainer.parallel=fsdp2", "trainer.steps=20", f"trainer.out={out}"))
    assert shown.count("checkpoint  ") == 1, "one rank alone tells"
    told = json.loads(helix("eval", out, "--json"))
    (validation,) = (record for record in records(out) if "validation_loss" in record)
    assert told["bits_per_byte"] == pytest.approx(validation["validation_bits_per_byte"], rel=1e-5)
    assert helix("generate", out, "--prompt=The ", "--n-bytes=8").startswith("The ")
    more = ["trainer.steps=25", "trainer.resume=true", "trainer.accumulate=2", f"trainer.out={out}"]
    helix("train", EXAMPLE, *SMALL, *more)
    assert [record["step"] for record in records(out) if "grad_norm" in record] == list(range(1, 26))


def test_torchrun_without_parallel_trains_by_ddp_what_one_process_trains(tmp_path):
    ranks, alone = tmp_path / "ranks", tmp_path / "alone"
    finished(torchrun("trainer.steps=8", "trainer.accumulate=2", f"trainer.out={ranks}"))
    helix("train", EXAMPLE, *SMALL, "trainer.steps=8", "trainer.accumulate=4", f"trainer.out={alone}")
    for found, expected in zip(records(ranks), records(alone), strict=True):
        assert found == pytest.approx(expected, rel=1e-4)
