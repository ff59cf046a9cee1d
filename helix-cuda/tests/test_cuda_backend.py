"""The backend cuda-triton says what is missing, or what it found."""

from __future__ import annotations

import pytest
import torch

from helix_cpu.backend import CPUBackend
from helix_cuda import backend as module
from helix_cuda.backend import CUDABackend
from helix_cuda.plugin import helix_backends
from helix_kernel.backends import BackendSelector, Memory
from helix_kernel.errors import ArgumentError
from helix_kernel.targets import load_target


@pytest.fixture(autouse=True)
def _compiled(monkeypatch):
    monkeypatch.setattr(module, "interprets", lambda: False)


@pytest.fixture
def _two_gpus(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    for name, value in {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "get_device_name": lambda index: f"GPU {index}",
        "get_device_capability": lambda index: (9, index),
        "mem_get_info": lambda index: (1000 + index, 4000),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)


def test_its_component_builds_it():
    (component,) = helix_backends()
    assert isinstance(load_target(component)(), CUDABackend)


def test_without_a_cuda_build_the_probe_says_so(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    probe = CUDABackend().probe()
    assert not probe.available
    assert "built without CUDA" in probe.reason


def test_without_a_device_the_probe_says_so(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    probe = CUDABackend().probe()
    assert not probe.available
    assert "no CUDA device" in probe.reason
    assert CUDABackend().memory() is None


@pytest.mark.usefixtures("_two_gpus")
def test_without_triton_the_probe_says_so(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    probe = CUDABackend().probe()
    assert not probe.available
    assert "python -m pip install triton" in probe.reason


@pytest.mark.usefixtures("_two_gpus")
def test_with_everything_the_probe_names_the_devices(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: name == "triton")
    probe = CUDABackend().probe()
    assert probe.available
    assert probe.devices == ("GPU 0 (compute capability 9.0)", "GPU 1 (compute capability 9.1)")
    assert CUDABackend().memory(1) == Memory(total=4000, available=1001)
    assert CUDABackend().memory(2) is None


def test_to_ask_for_it_where_it_is_missing_is_an_error_with_the_reason(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(ArgumentError, match=r"'cuda-triton' is not available: PyTorch .* built without CUDA"):
        BackendSelector({"cuda-triton": CUDABackend()}).select(["cuda-triton"])


def test_interpreted_it_serves_the_cpu_where_it_is_named_only(monkeypatch):
    monkeypatch.setattr(module, "interprets", lambda: True)
    selector = BackendSelector({"cuda-triton": CUDABackend(), "cpu-simd": CPUBackend()})
    assert selector.select(["cuda-triton"]).service("rms_norm", "cpu").serving == "cuda-triton"
    assert selector.select(["auto"]).service("rms_norm", "cpu").serving == "cpu-simd"
