"""Every op of `cuda-triton` keeps its contract."""

from __future__ import annotations

import pytest

import helix_ssm.ops  # noqa: F401 - defines the contracts
from helix_cuda.ops import NAMES
from helix_kernel.ops import defined
from helix_kernel.testing.ops import OpSuite


@pytest.mark.usefixtures("serve")
class TestEveryOp(OpSuite):
    tolerance: dict[str, float] = {"float32": 1e-5, "float64": 1e-10}  # noqa: RUF012 - as the suite has it
    grad_tolerance: dict[str, float] = {"float32": 1e-4, "float64": 1e-10}  # noqa: RUF012 - as above

    @pytest.fixture(autouse=True, params=NAMES)
    def _name(self, request, device):
        self.name = request.param
        self.device = device

    def make_contract(self):
        return defined()[self.name].contract
