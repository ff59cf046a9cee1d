"""Every op of helix-ssm keeps its contract, by its reference and by the backend torch-chunked."""

from __future__ import annotations

from types import MappingProxyType

import pytest
import torch

from helix_kernel.backends import BackendSelector
from helix_kernel.ops import defined
from helix_kernel.testing.ops import OpSuite
from helix_ssm import ops
from helix_ssm.ops.chunked import ChunkedBackend

NAMES = sorted(ops.__all__)


class _EveryOp(OpSuite):
    backend = "reference"

    @pytest.fixture(autouse=True, params=NAMES)
    def _serve(self, request):
        self.name = request.param
        with BackendSelector({"torch-chunked": ChunkedBackend()}).using([self.backend]) as selection:
            assert selection.service(self.name, "cpu").serving == self.backend
            yield

    def make_contract(self):
        return defined()[self.name].contract


class TestReference(_EveryOp):
    backend = "reference"


class TestChunked(_EveryOp):
    backend = "torch-chunked"


def test_the_chunked_backend_offers_a_gradient_for_each_op():
    offered = ChunkedBackend().ops
    assert set(offered) == {name for op in NAMES for name in (op, f"{op}_backward")}


class WrongGradient(ChunkedBackend):
    ops = MappingProxyType(
        {"rms_norm_backward": lambda grad, x, weight, *_: (grad, torch.ones_like(weight), x.new_empty(0))}
    )


def test_the_suite_catches_a_wrong_gradient():
    op = defined()["rms_norm"]
    with (
        BackendSelector({"wrong": WrongGradient()}).using(["wrong"]),
        pytest.raises(AssertionError, match="'plain': tensor 0 differs"),
    ):
        OpSuite().test_gradients_agree_with_the_reference(op, list(op.contract.samples()), "float64")
