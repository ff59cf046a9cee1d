"""The choice of the kernels' library, and how it runs on PyTorch's threads."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from helix_cpu import library
from helix_cpu.library import Kernel, LibraryError
from helix_cpu.ops.rms_norm import rms_norm
from helix_kernel.errors import ArgumentError

PROBE = "from helix_cpu.backend import CPUBackend; print(CPUBackend().probe().reason)"


@pytest.fixture(autouse=True)
def _restore():
    before = library.restore(None)
    yield
    library.restore(before)


def test_the_best_instruction_set_of_the_processor_is_chosen():
    library.use()
    assert library.library().isa == library.supported()[0]


def test_one_can_be_forced_by_the_environment():
    isa = library.supported()[-1]
    command = [sys.executable, "-c", PROBE]
    done = subprocess.run(
        command, env=os.environ | {library.ISA_VARIABLE: isa}, capture_output=True, text=True, check=True
    )
    assert f"with {isa}," in done.stdout


def test_a_misspelt_instruction_set_names_the_nearest():
    with pytest.raises(ArgumentError, match=r"HELIX_CPU_ISA is 'avx51'.*avx512"):
        library.use("avx51")


def test_one_that_is_not_built_or_not_supported_is_refused(monkeypatch):
    monkeypatch.setattr(library, "supported", lambda: ("baseline",))
    with pytest.raises(LibraryError, match=r"'avx512', allowed on this processor is one of \['baseline'\]"):
        library.use("avx512")


def test_a_missing_library_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv(library.FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(LibraryError, match=r"no kernels in.*install helix-cpu anew"):
        library.library()


def test_a_file_that_is_no_library_is_refused(tmp_path, monkeypatch):
    (tmp_path / library.library().path.name).write_text("not a library")
    monkeypatch.setenv(library.FOLDER_VARIABLE, str(tmp_path))
    library.restore(None)
    with pytest.raises(LibraryError, match="cannot be loaded"):
        library.library()


def test_a_kernel_of_another_version_is_refused():
    with pytest.raises(LibraryError, match="has no kernel 'nothing'"):
        Kernel("nothing", "1q")(0)
    with pytest.raises(LibraryError, match="takes other arguments"):
        Kernel("rms_norm", "1q")(0)


def test_kernels_run_on_the_threads_of_pytorch():
    assert library.library().threaded
    x, weight = torch.randn(5000, 64), torch.randn(64)
    threads = torch.get_num_threads()
    results = []
    for n_threads in (1, 3):
        torch.set_num_threads(n_threads)
        results.append(rms_norm(x, weight, 1e-5, None, 64, norm_before_gate=True))
    torch.set_num_threads(threads)
    assert torch.equal(*results)
