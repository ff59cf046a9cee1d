"""A test that asks for `serve` fails where the references passed it."""

from __future__ import annotations

import pytest
import torch
from against_float64 import with_gradients
from watched import Watched, kernels_alone, kernels_serving

from helix_cuda import serving
from helix_cuda.ops import implementations
from helix_ssm.ops import rms_norm


def case(device, dtype=torch.float32):
    return {"x": torch.ones(1, 2, dtype=dtype, device=device), "weight": torch.ones(2, device=device)}


def call(device, dtype=torch.float32):
    with_gradients(rms_norm, case(device, dtype))


def serve(device):
    with kernels_serving():
        call(device)


def test_where_kernels_were_called_nothing_is_said(device):
    serve(device)


def test_an_op_that_has_no_kernel_fails(device, monkeypatch):
    monkeypatch.setattr(serving, "NAMES", ("gla",))
    with pytest.raises(AssertionError, match=r"no kernel was called: is the op among helix_cuda\.ops\.NAMES"):
        serve(device)


@pytest.mark.parametrize("name", ["rms_norm", "rms_norm_backward"])
def test_a_kernel_that_declines_fails_though_another_is_called(device, monkeypatch, name):
    declining = dict(implementations()) | {name: lambda *_: NotImplemented}
    monkeypatch.setattr(serving, "implementations", lambda: declining)
    with pytest.raises(
        AssertionError, match=rf"the reference served \['{name}'\], which the kernels declined"
    ):
        serve(device)


def test_what_is_left_to_the_reference_in_float64_is_no_failure(device):
    with kernels_alone() as backend:
        call(device, torch.float64)
    assert not backend.served
    assert set(backend.ops) == set(Watched().ops)
