"""`helix cuda check`, `compile` and `warmup`: what they print, how they exit, what they want."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

import helix_ssm.ops  # noqa: F401 - defines the contracts
from helix_cuda import commands, serving, verdicts
from helix_cuda.backend import CUDABackend
from helix_cuda.ops import NAMES
from helix_cuda.plugin import helix_commands
from helix_cuda.verdicts import Verdict
from helix_kernel.backends import Probe
from helix_kernel.errors import ArgumentError, ConfigError, DependencyError, InputError
from helix_kernel.targets import load_target

MODEL = """
[model]
use = "language-model"
d_model = 8
n_layers = 1
vocab_size = 16

[model.mixer]
use = "mamba"
d_state = 4
"""
DATA = """
[data]
use = "text-bytes"
source = "python-docs"
seq_len = 5
batch_size = 2
"""


@pytest.fixture
def verdict(monkeypatch, tmp_path, device):
    """Checks that take no time: what each comes to, and which were made."""
    monkeypatch.setenv("HELIX_CACHE_DIR", str(tmp_path))
    made = []

    def check(op, where, *, thorough):
        assert where.type == device
        made.append(op)
        found = Verdict("result 0 is off" if op == "rms_norm" and made.count(op) == 1 else None, thorough)
        verdicts.write(op, verdicts.describe(where), found)
        return found

    monkeypatch.setattr(serving, "check", check)
    return made


@pytest.fixture
def _no_gpu(monkeypatch):
    probe = Probe(available=False, reason="PyTorch finds no CUDA device or driver")
    monkeypatch.setattr(CUDABackend, "probe", lambda _: probe)


def test_every_command_has_a_target():
    assert [component.name for component in helix_commands()] == ["cuda-check", "cuda-compile", "cuda-warmup"]
    assert all(callable(load_target(component)) for component in helix_commands())


def test_check_shows_verdicts_and_fails_where_an_op_is_wrong(verdict, capsys):
    assert commands.check(json=True) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["triton"] == verdicts.triton_version()
    wrong = {check["op"]: check["wrong"] for check in told["checks"]}
    assert wrong == dict.fromkeys(NAMES) | {"rms_norm": "result 0 is off"}


def test_check_shows_what_it_found_before_unless_told_to_look_again(verdict, capsys):
    assert commands.check(op=["rms_norm"]) == 1
    assert commands.check(op=["rms_norm"]) == 1
    assert verdict == ["rms_norm"]
    assert "result 0 is off" in capsys.readouterr().out
    assert commands.check(op=["rms_norm"], fresh=True) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("rms_norm  right")


def test_check_is_not_content_with_the_few_samples_of_a_first_call(verdict, device):
    verdicts.write("rms_norm", verdicts.describe(torch.device(device)), Verdict(None, thorough=False))
    assert commands.check(op=["rms_norm"]) == 1
    assert verdict == ["rms_norm"]


@pytest.mark.usefixtures("_no_gpu")
@pytest.mark.parametrize("command", ["check", "warmup"])
def test_without_a_gpu_it_says_why_and_what_works_without_one(command, tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(MODEL + DATA)
    run = {"check": commands.check, "warmup": lambda: commands.warmup(str(path))}[command]
    with pytest.raises(
        DependencyError, match=r"finds no CUDA device or driver.*helix cuda compile"
    ) as raised:
        run()
    assert raised.value.exit_code == 2


@pytest.mark.parametrize("run", [commands.check, commands.compile_kernels])
def test_an_op_that_is_not_ours_is_refused_with_the_nearest_name(run):
    with pytest.raises(InputError, match=r"--op rms_nrom: .*allowed is one of.*rms_norm"):
        run(op=["rms_nrom"])


@pytest.mark.usefixtures("interpreted")
def test_a_process_that_interprets_does_not_compile():
    with pytest.raises(ArgumentError, match="unset TRITON_INTERPRET"):
        commands.compile_kernels(op=["rms_norm"])


@pytest.fixture
def interpreted(device):
    """Leave a test out where kernels are compiled."""
    if device == "cuda":
        pytest.skip("of processes that interpret")


def test_compile_prints_what_each_kernel_takes(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "helix_kernel.cli", "cuda", "compile", "--op", "rms_norm", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["arch"] == "sm_90"
    kernels = {kernel["kernel"]: kernel for kernel in told["kernels"]}
    assert set(kernels) == {"rms_norm.forward", "rms_norm.backward"}
    assert all(kernel["registers"] > 8 and kernel["wrong"] is None for kernel in kernels.values())
    assert "COLUMNS=4096" in kernels["rms_norm.forward"]["config"]


def test_an_unknown_target_is_refused_with_those_known(monkeypatch):
    with pytest.raises(ArgumentError, match=r"arch is 'sm_17', allowed is one of \['sm_80'"):
        commands.compile_kernels(op=["rms_norm"], arch="sm_17")


@pytest.mark.parametrize("as_json", [True, False])
def test_warmup_trains_and_decodes_a_step_at_the_sizes_of_the_data(tmp_path, capsys, as_json):
    path = tmp_path / "config.toml"
    path.write_text(MODEL + DATA)
    commands.warmup(str(path), json=as_json)
    told = capsys.readouterr().out
    if as_json:
        warmed = {each["what"]: each for each in json.loads(told)["warmed"]}
        assert list(warmed) == ["training step", "decoding step"]
        assert all(each["seconds"] > 0 and each["first_seconds"] > 0 for each in warmed.values())
    else:
        assert [line.split("  ")[0] for line in told.splitlines()] == [
            "part",
            "training step",
            "decoding step",
        ]


def test_warmup_runs_our_kernels(tmp_path, monkeypatch):
    called = []
    original = serving._Guard._look
    monkeypatch.setattr(
        serving._Guard, "_look", lambda self, device: called.append(self._op) or original(self, device)
    )
    path = tmp_path / "config.toml"
    path.write_text(MODEL + DATA)
    commands.warmup(str(path), batch_size=1, seq_len=3)
    assert "rms_norm" in called


@pytest.mark.parametrize(
    ("text", "options", "error", "told"),
    [
        (
            MODEL,
            {},
            InputError,
            r"--batch-size is missing, and .*config.toml's \[data\] does not say batch_size",
        ),
        (MODEL + DATA, {"seq_len": 0}, InputError, "--seq-len is 0, allowed is >= 1"),
        (DATA, {}, ConfigError, r"\[model\] is missing"),
    ],
)
def test_warmup_of_what_it_cannot_run_says_what_is_missing(tmp_path, text, options, error, told):
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(error, match=told):
        commands.warmup(str(path), **options)
