"""The backend cpu-simd: what its probe says, what it serves, and how much memory there is."""

from __future__ import annotations

import platform

import pytest
import torch

from helix_cpu import backend as module
from helix_cpu import library
from helix_cpu.backend import CPUBackend, read_meminfo
from helix_cpu.plugin import helix_backends
from helix_kernel.backends import BackendSelector, Memory
from helix_kernel.targets import load_target


def test_its_component_builds_it():
    (component,) = helix_backends()
    assert isinstance(load_target(component)(), CPUBackend)


def test_the_probe_says_which_instruction_set_serves(isa):
    probe = CPUBackend().probe()
    assert probe.available
    assert probe.reason == f"{platform.machine()} with {isa}, {torch.get_num_threads()} threads"


def test_without_a_library_the_reference_goes_on_serving(tmp_path, monkeypatch):
    monkeypatch.setenv(library.FOLDER_VARIABLE, str(tmp_path))
    before = library.restore(None)
    try:
        selection = BackendSelector({"cpu-simd": CPUBackend()}).select(["auto"])
    finally:
        library.restore(before)
    service = selection.service("rms_norm", "cpu")
    assert service.serving == "reference"
    assert "no kernels in" in service.passed_over["cpu-simd"]
    assert "install helix-cpu anew" in service.passed_over["cpu-simd"]


def test_it_serves_what_it_offers():
    selection = BackendSelector({"cpu-simd": CPUBackend()}).select(["auto"])
    assert {selection.service(op, "cpu").serving for op in CPUBackend.ops} == {"cpu-simd"}


def test_memory_is_read_from_meminfo():
    text = "MemTotal:  2048 kB\nMemFree:  1 kB\nMemAvailable:  1024 kB\nHugePages_Total:  0\n"
    assert read_meminfo(text) == Memory(total=2048 * 1024, available=1024 * 1024)


@pytest.mark.parametrize("meminfo", [True, False])
def test_memory_is_plausible_on_this_machine(meminfo, tmp_path, monkeypatch):
    if not meminfo:
        monkeypatch.setattr(module, "_MEMINFO", tmp_path / "missing")
    memory = CPUBackend().memory()
    assert memory is None or 0 < memory.available <= memory.total
