"""An op whose kernels a compiler gets wrong is found out at its first call, and left to another backend."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

import helix_ssm.ops  # noqa: F401 - defines the contracts
from helix_cuda import self_check, serving, verdicts
from helix_cuda.backend import CUDABackend
from helix_cuda.ops import NAMES, implementations
from helix_cuda.self_check import few
from helix_cuda.serving import VARIABLE
from helix_kernel.backends import BackendSelector, Probe
from helix_kernel.ops import defined

OP = "rms_norm"
GRADIENT = f"{OP}_backward"


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """Where verdicts are kept; checks are on."""
    monkeypatch.setenv("HELIX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv(VARIABLE, "1")
    return tmp_path / "cache"


@pytest.fixture
def plant(monkeypatch):
    """Put kernels in the place of an op's."""

    def run(**kernels):
        planted = dict(implementations()) | kernels
        for module in (serving, self_check):
            monkeypatch.setattr(module, "implementations", lambda: planted)

    return run


@pytest.fixture
def checked(monkeypatch):
    """Every op that a check was begun of."""
    begun = []
    original = self_check.failure

    def failure(op, device, **how):
        begun.append(op.contract.name)
        return original(op, device, **how)

    monkeypatch.setattr(self_check, "failure", failure)
    return begun


def call(backend, device, dtype=torch.float32):
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    weight = torch.linspace(0.5, 2, 8, dtype=dtype, device=device)
    return backend.ops[OP](x, weight, 1e-5, None, 8, True), (x, weight)


def too_large(*args):
    return implementations()[OP](*args) * 1.01


def wrong_gradient(*args):
    grad_x, *others = implementations()[GRADIENT](*args)
    return (-grad_x, *others)


def wrong_in_bfloat16(*args):
    y = implementations()[OP](*args)
    return y if y.dtype == torch.float32 else y + 1


def of_another_shape(*args):
    return implementations()[OP](*args)[:0]


def not_a_number(*args):
    return implementations()[OP](*args) * float("nan")


def crash(*_):
    raise RuntimeError("PassManager::run failed\nin a long log")


WRONG = {
    "result": ({OP: too_large}, r"result 0 is off by 1\.\de-02 of its largest, allowed is 0\.0001, in"),
    "gradient": ({GRADIENT: wrong_gradient}, r"gradient 0 is off by .* in torch.float32, sample '"),
    "one dtype": ({OP: wrong_in_bfloat16}, r"result 0 is off by .* in torch.bfloat16"),
    "shape": ({OP: of_another_shape}, r"result 0 has shape \(0, 1, 8\), expected \(2, 1, 8\) in"),
    "NaN": ({OP: not_a_number}, "result 0 is off by nan"),
    "crash": ({GRADIENT: crash}, "raises RuntimeError: PassManager::run failed$"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_told_once_and_declined_with_its_gradient(plant, device, what):
    kernels, told = WRONG[what]
    plant(**kernels)
    backend = CUDABackend()
    with pytest.warns(RuntimeWarning, match="rms_norm fails its self-check by Triton") as warned:
        result, args = call(backend, device)
    assert result is NotImplemented
    reason = verdicts.read(OP, verdicts.describe(torch.device(device))).reason
    assert reason in str(warned[0].message)
    with pytest.raises(AssertionError, match=told):
        raise AssertionError(reason)
    for part in ("another backend serves it", "triton!=", "helix cuda check --op rms_norm", f"{VARIABLE}=0"):
        assert part in str(warned[0].message)
    assert call(backend, device)[0] is NotImplemented  # and no second warning, which would be an error
    gradient = backend.ops[GRADIENT]
    assert gradient(torch.ones_like(args[0]), *args, 1e-5, None, 8, True) is NotImplemented


def test_a_sound_op_serves_and_is_checked_once(checked, device):
    backend = CUDABackend()
    for _ in range(2):
        y, (x, weight) = call(backend, device)
        expected = torch.nn.functional.rms_norm(x, (8,), weight, eps=1e-5)
        torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    assert checked == [OP]
    call(CUDABackend(), device)
    assert checked == [OP]  # the verdict on disk holds


def test_the_next_backend_serves_what_fails(plant, device):
    plant(**{OP: too_large})
    x, weight = torch.randn(3, 8, device=device), torch.ones(8, device=device)
    with BackendSelector({"cuda-triton": CUDABackend()}).using(["cuda-triton"]):
        with pytest.warns(RuntimeWarning, match="self-check"):
            y = defined()[OP](x, weight, 1e-5, None, 8, True)
        torch.testing.assert_close(y, torch.nn.functional.rms_norm(x, (8,), weight, eps=1e-5))


def test_what_failed_before_is_not_offered_and_the_selection_says_why(plant, device):
    plant(**{OP: too_large})
    with pytest.warns(RuntimeWarning, match="self-check"):
        call(CUDABackend(), device)
    backend = CUDABackend()
    assert set(backend.withheld) == {OP, GRADIENT}
    assert not set(backend.ops) & {OP, GRADIENT}
    selection = BackendSelector({"cuda-triton": backend}).select(["cuda-triton"])
    why = selection.service(OP, device).passed_over["cuda-triton"]
    assert "withheld: rms_norm fails its self-check by Triton" in why
    assert "result 0 is off by" in why


def test_another_process_reads_the_verdict_and_imports_no_triton_for_it(plant, device):
    plant(**{OP: too_large})
    with pytest.warns(RuntimeWarning, match="self-check"):
        call(CUDABackend(), device)
    code = "import sys; print(*CUDABackend().withheld, 'triton' in sys.modules)"
    environment = os.environ | ({} if device == "cuda" else {"TRITON_INTERPRET": "1"})
    command = [sys.executable, "-c", f"from helix_cuda.backend import CUDABackend; {code}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [OP, GRADIENT, "False"]


def test_a_verdict_holds_for_sources_compiler_and_device_as_they_were(monkeypatch, tmp_path, cache, device):
    verdicts.write(OP, "GPU 1", verdicts.Verdict("off"))
    assert verdicts.read(OP, "GPU 1") == verdicts.Verdict("off")
    assert verdicts.read(OP, "GPU 2") is None
    assert verdicts.read("ssd_scan", "GPU 1") is None
    with monkeypatch.context() as other:
        other.setattr(verdicts, "triton_version", lambda: "3.99")
        assert verdicts.read(OP, "GPU 1") is None
    for state in ("one", "two"):
        (tmp_path / state / "kernels").mkdir(parents=True)
        (tmp_path / state / "kernels" / "rms_norm.py").write_text(f"# {state}")
    monkeypatch.setattr(verdicts, "SOURCES", tmp_path / "one")
    verdicts.write(OP, "GPU 1", verdicts.Verdict(None))
    monkeypatch.setattr(verdicts, "SOURCES", tmp_path / "two")
    assert verdicts.read(OP, "GPU 1") is None
    for path in cache.glob("cuda-check-*"):
        path.write_text("{torn")
    monkeypatch.setattr(verdicts, "SOURCES", tmp_path / "one")
    assert verdicts.read(OP, "GPU 1") is None


def test_what_a_verdict_is_about_can_be_read_in_its_file(cache):
    verdicts.write(OP, "GPU 1", verdicts.Verdict("off"))
    (path,) = cache.glob("cuda-check-*.json")
    about = json.loads(path.read_text())["about"]
    assert about == {"op": OP, "device": "GPU 1", "triton": verdicts.triton_version()}


@pytest.mark.parametrize("busy", ["capturing", "compiling"])
def test_no_check_begins_while_a_graph_is_captured_or_traced(monkeypatch, checked, device, busy):
    backend = CUDABackend()
    with monkeypatch.context() as now:
        if busy == "capturing":
            now.setattr(torch.cuda, "is_available", lambda: True)
            now.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        else:
            now.setattr(torch.compiler, "is_compiling", lambda: True)
        assert call(backend, device)[0] is not NotImplemented
        assert not checked
    call(backend, device)
    assert checked == [OP]


def test_switched_off_nothing_is_checked_nor_withheld(monkeypatch, plant, checked, device):
    verdicts.write(OP, verdicts.describe(torch.device(device)), verdicts.Verdict("off"))
    plant(**{OP: too_large})
    monkeypatch.setenv(VARIABLE, "0")
    backend = CUDABackend()
    assert not backend.withheld
    assert call(backend, device)[0] is not NotImplemented
    assert not checked


def test_the_interpreter_is_not_checked_unless_that_is_asked_for(monkeypatch):
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr(serving, "interprets", lambda: True)
    assert not serving.checks()
    monkeypatch.setattr(serving, "interprets", lambda: False)
    assert serving.checks()


SURROUNDINGS = {
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "another default device": lambda: torch.device("meta"),
}


@pytest.mark.parametrize("where", SURROUNDINGS)
def test_what_surrounds_the_first_call_does_not_disturb_the_check(device, where):
    backend = CUDABackend()
    x, weight = torch.randn(3, 8, device=device), torch.ones(8, device=device)
    with SURROUNDINGS[where]():
        assert backend.ops[OP](x, weight, 1e-5, None, 8, True) is not NotImplemented
    assert verdicts.read(OP, verdicts.describe(torch.device(device))) == verdicts.Verdict(None)


def test_the_check_draws_no_number_from_the_generator_of_the_process(device):
    state = torch.get_rng_state()
    call(CUDABackend(), device)
    assert torch.equal(torch.get_rng_state(), state)


def test_without_triton_nothing_is_offered_nor_withheld(monkeypatch):
    monkeypatch.setattr("helix_cuda.backend.find_spec", lambda _: None)
    backend = CUDABackend()
    assert not backend.ops
    assert not backend.withheld
    assert isinstance(backend.probe(), Probe)


@pytest.mark.parametrize("op", NAMES)
def test_few_samples_give_and_leave_out_each_argument(op):
    contract = defined()[op].contract
    samples, chosen = list(contract.samples()), few(contract)
    assert 1 <= len(chosen) < len(samples)
    for i in range(len(samples[0].args)):
        absent = {sample.args[i] is None for sample in samples}
        assert {sample.args[i] is None for sample in chosen} == absent


@pytest.mark.slow
@pytest.mark.parametrize("op", NAMES)
def test_every_op_of_ours_passes(device, op):
    assert serving.check(op, torch.device(device), thorough=True) == verdicts.Verdict(None, thorough=True)
