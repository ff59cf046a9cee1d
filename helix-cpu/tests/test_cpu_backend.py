"""The backend cpu-simd probes honestly and offers no op."""

from __future__ import annotations

import platform

import pytest
import torch

from helix_cpu import backend as module
from helix_cpu.backend import CPUBackend, read_meminfo
from helix_cpu.plugin import helix_backends
from helix_kernel.backends import BackendSelector, Memory
from helix_kernel.targets import load_target


def test_its_component_builds_it():
    (component,) = helix_backends()
    assert isinstance(load_target(component)(), CPUBackend)


def test_the_probe_says_what_pytorch_finds():
    probe = CPUBackend().probe()
    assert probe.available
    for fact in (
        platform.machine(),
        torch.backends.cpu.get_cpu_capability(),
        f"{torch.get_num_threads()} thr",
    ):
        assert fact in probe.reason


def test_it_offers_no_op_and_so_serves_none():
    selection = BackendSelector({"cpu-simd": CPUBackend()}).select(["auto"])
    service = selection.service("selective_scan", "cpu")
    assert service.serving == "reference"
    assert service.passed_over == {"cpu-simd": "does not implement it"}


def test_memory_is_read_from_meminfo():
    text = "MemTotal:  2048 kB\nMemFree:  1 kB\nMemAvailable:  1024 kB\nHugePages_Total:  0\n"
    assert read_meminfo(text) == Memory(total=2048 * 1024, available=1024 * 1024)


@pytest.mark.parametrize("meminfo", [True, False])
def test_memory_is_plausible_on_this_machine(meminfo, tmp_path, monkeypatch):
    if not meminfo:
        monkeypatch.setattr(module, "_MEMINFO", tmp_path / "missing")
    memory = CPUBackend().memory()
    assert memory is None or 0 < memory.available <= memory.total
