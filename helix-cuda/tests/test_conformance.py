"""Every op of `cuda-triton` keeps its contract.

Interpreted, the whole suite is slow; that results and gradients are right, each op's own file shows with
smaller calls.
"""

from __future__ import annotations

import pytest

import helix_ssm.ops  # noqa: F401 - defines the contracts
from helix_cuda.ops import NAMES
from helix_cuda.self_check import few
from helix_kernel.ops import defined
from helix_kernel.testing.ops import OpSuite


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("alone")
class TestEveryOp(OpSuite):
    tolerance: dict[str, float] = {"float32": 1e-5, "float64": 1e-10}  # noqa: RUF012 - as the suite has it
    grad_tolerance: dict[str, float] = {"float32": 1e-4, "float64": 1e-10}  # noqa: RUF012 - as above

    @pytest.fixture(autouse=True, params=NAMES)
    def _name(self, request, device):
        self.name = request.param
        self.device = device

    @pytest.fixture(name="samples")
    def fixture_samples(self, op, device):
        """Leave out what is large enough for many threads where one thread interprets it for minutes."""
        samples = op.contract.samples()
        return [sample for sample in samples if device != "cpu" or sample.name != "many-threads"]

    def make_contract(self):
        return defined()[self.name].contract


@pytest.mark.usefixtures("serve")
@pytest.mark.parametrize("op", NAMES)
def test_memory_that_nobody_wrote_is_not_read(op, device):
    """Of the suite this is what neither the file of an op nor `test_agreement` looks at."""
    suite = TestEveryOp()
    suite.device = device
    suite.test_memory_that_nobody_wrote_is_not_read(defined()[op], few(defined()[op].contract))
