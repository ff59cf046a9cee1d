"""The kernels built with AddressSanitizer and UBSan: the ops' tests run on them, and an overflow is found.

PyTorch's memory is then the sanitizer's too: a kernel that reads or writes beyond a tensor ends the process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helix_cpu import library

HERE = Path(__file__).parent
ISAS = list(dict.fromkeys([library.supported()[0], library.supported()[-1]]))
OTHERS = ("test_bench", "test_library", "test_patch", "test_peer_grids", "test_sanitizers", "test_scratch")
"""Tests of no kernel, of the same ones at greater length, or of memory that sanitizers keep themselves."""
SUITES = sorted(str(path) for path in HERE.glob("test_*.py") if not path.name.startswith(OTHERS))
RUNTIMES = ("libasan.so", "libubsan.so")
BEYOND = """
import torch
from helix_cpu.ops import rms_norm as module
x, y = torch.ones(4, 64), torch.empty(3, 64)
module._FORWARD(x.data_ptr(), 0, x.data_ptr(), y.data_ptr(), 4, 64, 64, 64, 64, 0, 1, 1e-5)
"""
"""Writes four rows to where three fit."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(
        not all(map(shutil.which, ("g++", "cmake", "make"))), reason="needs g++, cmake and make"
    ),
]


@pytest.fixture(scope="module", params=ISAS)
def sanitized(request, tmp_path_factory):
    """Build the library of an instruction set with the sanitizers; gives the environment to run on it."""
    build = tmp_path_factory.mktemp(f"sanitized-{request.param}")
    configure = ["cmake", "-S", HERE.parent, "-B", build, "-DCMAKE_CXX_COMPILER=g++"]
    subprocess.run([*configure, "-DHELIX_CPU_SANITIZE=address,undefined"], check=True, capture_output=True)
    target = f"helix_cpu_{request.param}"
    subprocess.run(["cmake", "--build", build, "--target", target], check=True, capture_output=True)
    return os.environ | {
        library.FOLDER_VARIABLE: str(build),
        "LD_PRELOAD": " ".join(map(runtime, RUNTIMES)),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python keeps much until its end
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }


def test_the_tests_of_the_ops_find_no_fault(sanitized):
    # -s: a sanitizer writes its report as the process ends, when what pytest had captured is lost.
    done = run(
        ["-m", "pytest", "-q", "-x", "-s", "-p", "no:cacheprovider", "-m", "not slow", *SUITES], sanitized
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert " passed" in done.stdout


def test_a_write_beyond_a_tensor_is_found(sanitized):
    done = run(["-c", BEYOND], sanitized)
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
    assert "rms_norm" in done.stderr


def run(arguments, environment):
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )


def runtime(name):
    asked = subprocess.run(["g++", f"-print-file-name={name}"], check=True, capture_output=True, text=True)
    return asked.stdout.strip()
