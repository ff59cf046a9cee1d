"""The kernel of `ssd_scan`: sizes, streaming, extremes, dtypes and strides, on every instruction set."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

import helix_ssm.ops  # noqa: F401 - defines the contract
from helix_cpu.ops.ssd_scan import ssd_scan, ssd_scan_backward
from helix_kernel.errors import ArgumentError
from helix_kernel.ops import reference
from helix_kernel.testing._op_surroundings import poisoned_memory, threads

REFERENCE, GRADIENT = reference("ssd_scan"), reference("ssd_scan_backward")
SUMS = (2, 6)  # among the gradients: those of A and dt_bias, summed over tokens
pytestmark = pytest.mark.usefixtures("isa")


class Call(NamedTuple):
    """The op's arguments."""

    x: torch.Tensor
    dt: torch.Tensor
    A: torch.Tensor
    B: torch.Tensor
    C: torch.Tensor
    D: torch.Tensor | None = None
    dt_bias: torch.Tensor | None = None
    dt_softplus: bool = False
    dt_limit: list[float] | None = None
    initial_state: torch.Tensor | None = None
    cu_seqlens: torch.Tensor | None = None

    def to(self, dtype):
        return Call(*(value.to(dtype) if is_float(value) else value for value in self))


def is_float(value):
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def draw(batch_size=2, seq_len=37, n_heads=4, head_dim=8, d_state=16, groups=2, seed=0, rates=1):
    """Draw a call with every argument; `rates` is the number of dimensions of A."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    return Call(
        x=normal(batch_size, seq_len, n_heads, head_dim),
        dt=normal(batch_size, seq_len, n_heads) - 1.0,
        A=-normal(*((batch_size, seq_len, n_heads) if rates == 3 else (n_heads,))).exp(),
        B=normal(batch_size, seq_len, groups, d_state),
        C=normal(batch_size, seq_len, groups, d_state),
        D=normal(n_heads, head_dim) if seed % 2 else normal(n_heads),
        dt_bias=normal(n_heads) * 0.1,
        dt_softplus=True,
        dt_limit=[0.05, 2.0],
        initial_state=normal(batch_size, n_heads, head_dim, d_state),
    )


def cotangents(call):
    rows = call.x.shape[0] if call.cu_seqlens is None else call.cu_seqlens.shape[0] - 1
    generator = torch.Generator().manual_seed(1)
    state = (rows, *call.x.shape[2:], call.B.shape[3])
    return torch.randn(call.x.shape, generator=generator), torch.randn(state, generator=generator)


def assert_close(found, expected, tolerance, least_sum=1e-30):
    for i, (left, right) in enumerate(zip(found, expected, strict=True)):
        assert left.shape == right.shape
        assert left.is_contiguous()
        if right.numel():
            scale = right.double().abs().max().clamp(min=least_sum if i in SUMS else 1e-30)
            worst = (left.double() - right.double()).abs().max() / scale
            assert worst <= tolerance, f"tensor {i} differs by {worst:.1e} of its largest element"


def assert_agrees(call, tolerance=1e-6, grad_tolerance=1e-5):
    """Compare results and gradients with the reference in float64."""
    wide = call.to(torch.float64)
    assert_close(ssd_scan(*call), REFERENCE(*wide), tolerance)
    grads = cotangents(call)
    expected = GRADIENT(*(grad.double() for grad in grads), *wide)
    # Sums over tokens may cancel: their error is by the size of the terms, which are much as dt's gradients.
    least_sum = max(expected[1].abs().flatten().tolist(), default=0.0)
    assert_close(ssd_scan_backward(*grads, *call), expected, grad_tolerance, max(least_sum, 1e-30))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batch_size=st.integers(0, 2),
    seq_len=st.integers(0, 70),
    heads=st.sampled_from([(1, 1), (2, 1), (3, 3), (10, 1), (6, 2)]),
    head_dim=st.integers(1, 70),
    d_state=st.one_of(st.integers(1, 20), st.sampled_from([64, 65, 256])),
    seed=st.integers(0, 9),
    rates=st.sampled_from([1, 3]),
)
def test_any_size_agrees_with_the_reference(batch_size, seq_len, heads, head_dim, d_state, seed, rates):
    assert_agrees(draw(batch_size, seq_len, heads[0], head_dim, d_state, heads[1], seed, rates))


def test_any_length_agrees_with_the_reference():
    for seq_len in range(1, 71):
        call = draw(batch_size=1, seq_len=seq_len, n_heads=2, groups=1, head_dim=5, d_state=3, seed=seq_len)
        assert_close(ssd_scan(*call), REFERENCE(*call.to(torch.float64)), 1e-6)


@pytest.mark.parametrize("seq_len", [31, 32, 63, 64, 65, 128, 129, 193])
def test_gradients_agree_with_the_reference_about_the_ends_of_chunks(seq_len):
    assert_agrees(
        draw(batch_size=1, seq_len=seq_len, n_heads=2, groups=1, head_dim=5, d_state=3, seed=seq_len)
    )


@pytest.mark.parametrize("empty", ["batch_size", "seq_len", "n_heads", "head_dim", "d_state"])
def test_a_dimension_may_be_empty(empty):
    assert_agrees(draw(**{empty: 0}))


def test_decays_of_a_long_memory_are_not_rounded():
    """SciPy's filter as the oracle: a decay rounded to a float is wrong by 3e-4 after 10,000 tokens."""
    x = torch.randn(1, 20_000, 1, 1, generator=torch.Generator().manual_seed(0))
    dt, rate, ones = torch.full((1, 20_000, 1), 0.1), torch.tensor([-1e-3]), torch.ones(1, 20_000, 1, 1)
    y, _ = ssd_scan(*Call(x, dt, rate, ones, ones))
    step = float(dt[0, 0, 0])
    expected = lfilter([step], [1.0, -np.exp(step * float(rate))], x.double().flatten().numpy())
    assert_close([y.flatten()], [torch.from_numpy(expected)], 1e-5)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 70), max_size=4))
def test_pieces_of_a_sequence_give_what_the_whole_does(cuts):
    call = draw(batch_size=1, seq_len=70)
    y, final_state = ssd_scan(*call)
    state, found = call.initial_state, [y[:, :0]]
    bounds = [0, *sorted(cuts), 70]
    for start, end in pairwise(bounds):
        part = {name: getattr(call, name)[:, start:end] for name in ("x", "dt", "B", "C")}
        piece, state = ssd_scan(*call._replace(**part, initial_state=state))
        found.append(piece)
    assert_close([torch.cat(found, 1), state], [y, final_state], 1e-6)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 70), max_size=6), rates=st.sampled_from([1, 3]))
def test_packed_sequences_are_each_by_itself(cuts, rates):
    bounds = [0, *sorted(cuts), 70]
    call = draw(batch_size=1, seq_len=70, rates=rates)
    states = torch.randn(len(bounds) - 1, *call.initial_state.shape[1:])
    assert_agrees(call._replace(initial_state=states, cu_seqlens=torch.tensor(bounds, dtype=torch.int32)))


@pytest.mark.parametrize("bounds", [[0, 1, 70], [0, 33, 34, 70], [0, 32, 64, 70], [0, 0, 5, 5, 70]])
def test_packed_sequences_without_given_states_begin_at_nothing(bounds):
    call = draw(batch_size=1, seq_len=70)._replace(initial_state=None)
    assert_agrees(call._replace(cu_seqlens=torch.tensor(bounds, dtype=torch.int32)))


@pytest.mark.parametrize("bounds", [[0, 5, 3, 9], [1, 9], [0, 8]])
def test_bounds_that_do_not_fit_are_refused(bounds):
    call = draw(batch_size=1, seq_len=9)._replace(initial_state=None, cu_seqlens=torch.tensor(bounds))
    with pytest.raises(ArgumentError, match="cu_seqlens"):
        ssd_scan(*call)


@pytest.mark.parametrize("sizes", [{}, {"seq_len": 1}, {"n_heads": 11, "groups": 1}, {"batch_size": 1}])
def test_results_do_not_depend_on_the_number_of_threads(sizes):
    call = draw(**sizes)
    grads = cotangents(call)
    found = []
    for count in (1, 2, 5):
        with threads(count):
            found.append([*ssd_scan(*call), *ssd_scan_backward(*grads, *call)])
    for others in found[1:]:
        assert all(torch.equal(*pair) for pair in zip(found[0], others, strict=True))


@pytest.mark.parametrize("sizes", [{}, {"seq_len": 1}, {"seq_len": 0}, {"head_dim": 17, "d_state": 9}])
def test_memory_that_nobody_wrote_is_not_read(sizes):
    call = draw(**sizes)
    with poisoned_memory():
        found = [*ssd_scan(*call), *ssd_scan_backward(*cotangents(call), *call)]
    assert not any(tensor.isnan().any() for tensor in found)


@pytest.mark.parametrize(
    ("scale", "rate"),
    [(0.0, -1.0), (1e-41, -1.0), (1.0, -1e-30), (1.0, -50.0), (3.0, -1e4), (1e4, -1e4), (0.1, 0.3)],
)
def test_extreme_steps_agree_with_the_reference(scale, rate):
    call = draw(seq_len=70)._replace(dt_softplus=False, dt_bias=None, dt_limit=None)
    steps = call.dt.abs() * scale
    steps[:, ::7] = 0.0  # between strong decays the state may also stand still
    assert_agrees(call._replace(dt=steps, A=call.A * -rate))


def test_extreme_arguments_of_softplus_agree_with_the_reference():
    call = draw(seq_len=70)
    steps = torch.linspace(-200, 200, call.dt.numel()).view(call.dt.shape)
    assert_agrees(call._replace(dt=steps, dt_limit=None))


@pytest.mark.parametrize("scale", [1e-20, 1e17])
def test_inputs_of_any_magnitude_agree_with_the_reference(scale):
    call = draw(seq_len=70)
    assert_agrees(call._replace(x=call.x * scale, initial_state=call.initial_state * scale))


def test_an_overflow_to_come_does_not_reach_the_tokens_before():
    call = draw(batch_size=1, seq_len=40)
    late = call.x.clone()
    late[:, 30:] = 3e38
    early, _ = ssd_scan(*call)
    y, _ = ssd_scan(*call._replace(x=late))
    assert torch.equal(y[:, :30], early[:, :30])
    grad_y, _ = cotangents(call)
    grad_y[:, 30:] = 0.0
    grads = ssd_scan_backward(grad_y, None, *call._replace(x=late))
    assert not grads[0][:, :30].isnan().any()


def test_strides_of_any_kind_are_followed():
    call = draw(seq_len=21, rates=3)
    wide = torch.randn(2, 21, 3 * call.x.shape[2] * call.x.shape[3])
    wide[:, :, 5 : 5 + 32] = call.x.flatten(2)
    strided = call._replace(
        x=wide[:, :, 5 : 5 + 32].unflatten(2, call.x.shape[2:]),
        dt=call.dt.transpose(1, 2).contiguous().transpose(1, 2),
        A=call.A[:, :1].expand_as(call.A),
        B=torch.stack([call.B, call.C], dim=-1)[..., 0],
        C=call.C.flip(1).contiguous().flip(1),
        initial_state=call.initial_state.mT.contiguous().mT,
    )
    dense = Call(*(torch.tensor(value.tolist()) if is_float(value) else value for value in strided))
    grads = cotangents(call)
    spread = (torch.stack([grads[0]] * 2, dim=-1)[..., 0], grads[1].mT.contiguous().mT)
    found = [*ssd_scan(*strided), *ssd_scan_backward(*spread, *strided)]
    expected = [*ssd_scan(*dense), *ssd_scan_backward(*grads, *dense)]
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("seq_len", [1, 37])
@pytest.mark.parametrize("mixed", [False, True])
def test_narrow_inputs_are_computed_in_float32(dtype, seq_len, mixed):
    call = draw(seq_len=seq_len, head_dim=18, d_state=20).to(dtype)
    if mixed:
        call = call._replace(B=call.B.float(), A=call.A.float())
    wide = call.to(torch.float64)
    y, state = ssd_scan(*call)
    assert y.dtype is dtype
    expected_y, expected_state = REFERENCE(*wide)
    assert_close([y], [expected_y], torch.finfo(dtype).eps)
    assert_close([state], [expected_state], 1e-6)
    grad_y, grad_state = cotangents(call)
    grad_y = grad_y.to(dtype)
    found = ssd_scan_backward(grad_y, grad_state, *call)
    given = [value for value in call if is_float(value)]
    assert [grad.dtype for grad in found] == [value.dtype for value in given]
    expected = GRADIENT(grad_y.double(), grad_state.double(), *wide)
    assert_close(found, expected, torch.finfo(dtype).eps)


def test_a_gradient_may_be_missing():
    call = draw()
    wide = call.to(torch.float64)
    grad_y, grad_state = cotangents(call)
    for pair in ((grad_y, None), (None, grad_state)):
        expected = GRADIENT(*(None if grad is None else grad.double() for grad in pair), *wide)
        assert_close(ssd_scan_backward(*pair, *call), expected, 1e-5)


def test_float64_is_left_to_the_next_backend():
    call = draw()
    for wide in (call.to(torch.float64), call._replace(A=call.A.double())):
        assert ssd_scan(*wide) is NotImplemented
        assert ssd_scan_backward(*cotangents(call), *wide) is NotImplemented
