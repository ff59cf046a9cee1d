"""The kernels' tests run everywhere: on a GPU where there is one, else by Triton's interpreter.

Triton looks for the interpreter when it is imported, so that this file must import it first. The
variable is taken back: processes that tests start decide for themselves.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from helix_cuda.interpreter import mend

sys.path.insert(0, str(Path(__file__).parent / "support"))

if TYPE_CHECKING:
    from collections.abc import Iterator


def _interpret() -> None:
    assert "triton" not in sys.modules, "triton was imported before helix-cuda's tests could choose how"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        import triton.language
    triton.knobs.runtime.interpret = True
    mend()


if not torch.cuda.is_available():
    _interpret()


@pytest.fixture(scope="session")
def device() -> str:
    """Where kernels run in these tests."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def alone() -> Iterator[None]:
    """Put `cuda-triton` into force, alone; of what is not in float64 it may decline nothing."""
    from watched import kernels_alone

    with kernels_alone():
        yield


@pytest.fixture
def serve() -> Iterator[None]:
    """Do as `alone`, and fail where no kernel was called."""
    from watched import kernels_serving

    with kernels_serving():
        yield
