"""Every op of `cuda-triton` keeps its contract."""

from __future__ import annotations

import pytest

import helix_ssm.ops  # noqa: F401 - defines the contracts
from helix_cuda.ops import NAMES
from helix_kernel.ops import defined
from helix_kernel.testing.ops import OpSuite

# Its chunks go token by token, which the interpreter takes minutes for; test_rwkv7 has smaller calls.
OPS = [pytest.param(name, marks=pytest.mark.slow if name == "rwkv7" else ()) for name in NAMES]


@pytest.mark.usefixtures("serve")
class TestEveryOp(OpSuite):
    tolerance: dict[str, float] = {"float32": 1e-5, "float64": 1e-10}  # noqa: RUF012 - as the suite has it
    grad_tolerance: dict[str, float] = {"float32": 1e-4, "float64": 1e-10}  # noqa: RUF012 - as above

    @pytest.fixture(autouse=True, params=OPS)
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

    @pytest.mark.slow
    def test_the_number_of_threads_does_not_matter(self, op, samples):
        """PyTorch's threads have no part in a kernel, and little in what is around it."""
        super().test_the_number_of_threads_does_not_matter(op, samples)
