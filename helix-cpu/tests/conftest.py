"""Fixtures for the tests of kernels: each instruction set of this machine in turn, the backend in force."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from helix_cpu import library
from helix_cpu.backend import CPUBackend
from helix_kernel.backends import BackendSelector

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=library.supported())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Put the library of each instruction set into use; gives its name."""
    before = library.use(request.param)
    yield request.param
    library.restore(before)


@pytest.fixture
def serve() -> Iterator[None]:
    """Put `cpu-simd` into force, alone: what it declines is the reference's."""
    with BackendSelector({"cpu-simd": CPUBackend()}).using(["cpu-simd"]):
        yield
