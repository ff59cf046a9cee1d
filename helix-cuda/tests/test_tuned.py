"""A tuned kernel is measured on a GPU once; its first configuration serves where nothing is measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import pytest
import torch
import triton
import triton.language as tl

from helix_cuda import tuning
from helix_cuda.tuning import VARIABLE, taking, tuned

PROGRAM = """
import json, sys
import torch, triton
from helix_cuda.kernels import rms_norm
from helix_cuda.ops.rms_norm import rms_norm as run

hits = []
triton.knobs.compilation.listener = lambda *_, **told: hits.append(told["cache_hit"])
x = torch.randn(64, 512, device="cuda")
run(x, torch.ones(512, device="cuda"), 1e-5, None, 512, True)
tuner = rms_norm.forward._tuner
measured = getattr(tuner, "bench_time", None)
print(json.dumps({"hits": hits, "chosen": str(tuner.best_config), "measured": measured}))
"""


@tuned([triton.Config({"SIZE": 4}), triton.Config({"SIZE": 8}, num_warps=8)], key=["n"])
@triton.jit
def write_size(out, n, SIZE: tl.constexpr):
    tl.store(out, SIZE)


class Launches:
    """Stands in for a kernel and for its tuner: notes who was launched, in what configuration."""

    def __init__(self, name, found):
        self.name = name
        self.found = found

    def __getitem__(self, grid):
        return lambda *args, **config: self.found.append((self.name, config))


@pytest.fixture
def launched(monkeypatch):
    """A kernel as on a GPU; returns it and what it launches."""
    found = []
    kernel = tuning.Tuned(write_size.kernel, write_size.configs, ["n"])
    monkeypatch.setattr(kernel, "kernel", Launches("kernel", found))
    monkeypatch.setattr(kernel, "_tuner", Launches("tuner", found))
    monkeypatch.setattr(tuning, "interprets", lambda: False)
    return kernel, found


def test_the_interpreter_takes_the_first_configuration(device):
    if device == "cuda":
        pytest.skip("of processes that interpret")
    out = torch.zeros(1, dtype=torch.int32)
    write_size[(1,)](out, 1)
    assert out.item() == 4


def test_a_gpu_takes_what_its_tuner_measured(launched, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    kernel, found = launched
    kernel[(1,)](None, 1)
    assert found == [("tuner", {})]


FIRST = {"SIZE": 4, "num_warps": 4, "num_ctas": 1, "num_stages": 3}


def test_told_to_measure_nothing_a_gpu_takes_the_first(launched, monkeypatch):
    monkeypatch.setenv(VARIABLE, "0")
    kernel, found = launched
    kernel[(1,)](None, 1)
    assert found == [("kernel", FIRST)]


def test_deterministic_algorithms_take_the_first(launched, monkeypatch):
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    kernel, found = launched
    kernel[(1,)](None, 1)
    assert found == [("kernel", FIRST)]


def test_a_given_configuration_is_taken_by_the_thread_that_asks_and_no_other(launched, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    kernel, found = launched
    with taking(1) as choice:
        kernel[(1,)](None, 1)
        other = threading.Thread(target=lambda: kernel[(1,)](None, 1))
        other.start()
        other.join()
        assert choice.exists
    kernel[(1,)](None, 1)
    assert found == [("kernel", FIRST | {"SIZE": 8, "num_warps": 8}), ("tuner", {}), ("tuner", {})]


def test_of_a_kernel_with_fewer_configurations_the_first_is_taken(launched):
    kernel, found = launched
    with taking(2) as choice:
        kernel[(1,)](None, 1)
    assert found == [("kernel", FIRST)]
    assert not choice.exists


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU to measure on")
def test_a_second_process_measures_and_compiles_nothing(tmp_path):
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop(VARIABLE, None)
    told = []
    for _ in range(2):
        command = [sys.executable, "-c", PROGRAM]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        told.append(json.loads(done.stdout))
    first, second = told
    assert not all(first["hits"])
    assert first["measured"] is not None
    assert second["hits"]
    assert all(second["hits"])
    assert second["measured"] is None
    assert second["chosen"] == first["chosen"]
