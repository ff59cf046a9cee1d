"""The Python entries of the ops check their arguments, and packing, states and autocast behave."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from transformers.models.mamba2.modeling_mamba2 import MambaRMSNormGated

from helix_kernel.backends import BackendSelector
from helix_kernel.errors import ArgumentError
from helix_ssm.ops import add_rms_norm, causal_conv1d, long_conv, rms_norm, selective_scan
from helix_ssm.ops.chunked import ChunkedBackend


def draw(*shape, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


def scan_arguments(batch_size=2, seq_len=20, d_model=4, d_state=3):
    return {
        "u": draw(batch_size, seq_len, d_model),
        "delta": draw(batch_size, seq_len, d_model).abs(),
        "A": -draw(d_model, d_state).exp(),
        "B": draw(batch_size, seq_len, d_state),
        "C": draw(batch_size, seq_len, d_state) + 1,
    }


@pytest.fixture(params=["reference", "torch-chunked"])
def _each_backend(request):
    with BackendSelector({"torch-chunked": ChunkedBackend()}).using([request.param]):
        yield


@pytest.mark.usefixtures("_each_backend")
def test_a_scan_goes_on_from_its_final_state():
    arguments = scan_arguments()
    whole, last = selective_scan(**arguments, return_final_state=True)
    cut = lambda part: {k: v if k == "A" else v[:, part] for k, v in arguments.items()}  # noqa: E731
    first, state = selective_scan(**cut(slice(0, 11)), return_final_state=True)
    second, end = selective_scan(**cut(slice(11, 20)), initial_state=state, return_final_state=True)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
    torch.testing.assert_close(end, last)


@pytest.mark.usefixtures("_each_backend")
def test_packed_scans_are_those_of_each_sequence():
    arguments = scan_arguments(batch_size=1)
    bounds = [0, 1, 9, 20]
    packed, states = selective_scan(**arguments, cu_seqlens=torch.tensor(bounds), return_final_state=True)
    for i, (start, end) in enumerate(pairwise(bounds)):
        own = {k: v if k == "A" else v[:, start:end] for k, v in arguments.items()}
        y, state = selective_scan(**own, return_final_state=True)
        torch.testing.assert_close(packed[:, start:end], y)
        torch.testing.assert_close(states[i : i + 1], state)


@pytest.mark.usefixtures("_each_backend")
def test_bfloat16_is_computed_in_float32():
    arguments = {k: v.to(torch.bfloat16) for k, v in scan_arguments().items()}
    y, state = selective_scan(**arguments, return_final_state=True)
    wide = selective_scan(**{k: v.float() for k, v in arguments.items()})
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(y, wide.to(torch.bfloat16))


@pytest.mark.usefixtures("_each_backend")
def test_the_convolution_goes_on_from_its_final_state():
    x, weight, bias = draw(2, 9, 3), draw(3, 4), draw(3)
    whole = causal_conv1d(x, weight, bias, "silu")
    state, parts = None, []
    for part in x.split([1, 2, 6], dim=1):
        y, state = causal_conv1d(part, weight, bias, "silu", initial_state=state, return_final_state=True)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)
    assert torch.equal(state, x[:, -3:])


@pytest.mark.usefixtures("_each_backend")
def test_the_long_convolution_answers_an_impulse_with_its_kernel():
    kernel = draw(3, 8)
    x = torch.zeros(1, 8, 3, dtype=torch.float64)
    x[:, 2] = 1
    y = long_conv(x, kernel)
    torch.testing.assert_close(y[0, 2:], kernel.t()[:6])
    torch.testing.assert_close(y[0, :2], torch.zeros(2, 3, dtype=torch.float64))


@pytest.mark.usefixtures("_each_backend")
def test_the_norm_agrees_with_pytorchs_and_returns_the_sum_with_a_residual():
    x, weight, residual, z = draw(2, 5, 8), draw(8), draw(2, 5, 8) + 1, draw(2, 5, 8)
    expected = torch.nn.functional.rms_norm(x + residual, (8,), weight, 1e-6)
    y, total = rms_norm(x, weight, 1e-6, residual=residual)
    torch.testing.assert_close(y, expected)
    assert torch.equal(total, x + residual)
    torch.testing.assert_close(
        rms_norm(x + residual, weight, 1e-6, z=z), expected * torch.nn.functional.silu(z)
    )


@pytest.mark.usefixtures("_each_backend")
@pytest.mark.parametrize("group_size", [2, 8])
def test_the_norm_in_groups_with_the_gate_first_is_mamba_2s(group_size):
    theirs = MambaRMSNormGated(8, group_size, eps=1e-3)
    torch.nn.init.normal_(theirs.weight)
    x, z = draw(2, 5, 8).float(), draw(5, 2, 8).float().transpose(0, 1)
    ours = rms_norm(x, theirs.weight, 1e-3, z=z, group_size=group_size, norm_before_gate=False)
    torch.testing.assert_close(ours, theirs(x, z))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"u": draw(2, 20)}, r"u has shape \(2, 20\), allowed is \(any, any, any\)"),
        ({"delta": draw(2, 20, 5)}, r"delta has shape \(2, 20, 5\), allowed is \(2, 20, 4\)"),
        ({"A": draw(3, 3)}, r"A has shape \(3, 3\), allowed is \(4, any\)"),
        ({"A": draw(4, 3).to(torch.complex128)}, "A has dtype torch.complex128"),
        ({"B": draw(2, 20, 3, 3), "C": draw(2, 20, 3, 3)}, "3 groups, which do not divide the 4 channels"),
        ({"C": draw(2, 19, 3)}, "C has shape"),
        ({"D": draw(3)}, "D has shape"),
        ({"initial_state": draw(1, 4, 3)}, r"initial_state has shape \(1, 4, 3\), allowed is \(2, 4, 3\)"),
        ({"cu_seqlens": torch.tensor([0, 20])}, "the batch size is 2"),
    ],
)
def test_a_scan_refuses_what_does_not_fit(change, message):
    with pytest.raises(ArgumentError, match=message):
        selective_scan(**{**scan_arguments(), **change})


@pytest.mark.parametrize("bounds", [[0, 19], [1, 20], [0, 12, 8, 20]])
def test_bounds_that_do_not_cover_the_row_are_refused(bounds):
    with pytest.raises(ArgumentError, match="values that rise from 0 to seq_len=20"):
        selective_scan(**scan_arguments(batch_size=1), cu_seqlens=torch.tensor(bounds))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: causal_conv1d(draw(1, 4, 3), draw(3, 4), activation="gelu"), "activation is 'gelu'"),
        (lambda: causal_conv1d(draw(1, 4, 3), draw(3, 0)), "at least one tap"),
        (lambda: long_conv(draw(1, 4, 3), draw(2, 4)), "kernel has shape"),
        (lambda: rms_norm(draw(1, 4), draw(3)), "weight has shape"),
        (lambda: add_rms_norm(draw(1, 4), draw(1, 3), draw(4)), "residual has shape"),
        (lambda: add_rms_norm(draw(1, 4), draw(1, 4), draw(4), eps=-1.0), "eps is -1.0"),
        (lambda: rms_norm(draw(1, 4), draw(4), eps=-1.0), "eps is -1.0"),
        (lambda: rms_norm(torch.ones(()), draw(4)), "no dimension"),
        (lambda: rms_norm(draw(1, 4), draw(4), group_size=3), "group_size is 3, allowed is a divisor of 4"),
    ],
)
def test_the_other_ops_refuse_what_does_not_fit(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()
