"""Every op of `cpu-simd` keeps its contract, on every instruction set that this machine has."""

from __future__ import annotations

import pytest

import helix_ssm.ops  # noqa: F401 - defines the contracts
from helix_cpu.backend import CPUBackend
from helix_kernel.ops import defined
from helix_kernel.testing.ops import OpSuite

NAMES = sorted(name for name in CPUBackend.ops if not name.endswith("_backward"))


@pytest.mark.usefixtures("isa", "serve")
class TestEveryOp(OpSuite):
    tolerance: dict[str, float] = {"float32": 1e-6, "float64": 1e-10}  # noqa: RUF012 - as the suite has it
    grad_tolerance: dict[str, float] = {"float32": 1e-5, "float64": 1e-10}  # noqa: RUF012 - as above

    @pytest.fixture(autouse=True, params=NAMES)
    def _name(self, request):
        self.name = request.param
        # The gradient of a row of one channel is a difference of near equals.
        if self.name in ("rms_norm", "add_rms_norm"):
            self.grad_tolerance = {"float32": 1e-4, "float64": 1e-10}

    def make_contract(self):
        return defined()[self.name].contract


def test_every_op_has_its_gradient():
    assert set(CPUBackend.ops) == {each for name in NAMES for each in (name, f"{name}_backward")}
