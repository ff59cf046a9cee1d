"""The kernel of `selective_scan`: odd sizes, narrow dtypes, packed rows, extremes; every instruction set."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helix_cpu.ops import selective_scan as op
from helix_cpu.ops.selective_scan import selective_scan, selective_scan_backward
from helix_kernel.errors import ArgumentError
from helix_kernel.ops import reference
from helix_ssm.ops.selective_scan import INTERVAL

REFERENCE, GRADIENT = reference("selective_scan"), reference("selective_scan_backward")
pytestmark = pytest.mark.usefixtures("isa")


def arguments(
    batch_size=2,
    seq_len=19,
    d_model=21,
    d_state=5,
    *,
    groups=None,
    extras=True,
    softplus=True,
    bounds=None,
    dt=0.1,
    seed=0,
):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    x = (batch_size, seq_len, d_model)
    projection = (batch_size, seq_len, *(() if groups is None else (groups,)), d_state)
    delta = draw(*x) - 2 if softplus else draw(*x).abs() * dt
    rates = -torch.rand(d_model, d_state, generator=generator) * 8 - 0.05
    n_sequences = batch_size if bounds is None else len(bounds) - 1
    return [
        draw(*x),
        delta,
        rates,
        draw(*projection),
        draw(*projection),
        draw(d_model) if extras else None,
        draw(*x) if extras else None,
        draw(d_model).abs() * 0.1 if extras else None,
        softplus,
        draw(n_sequences, d_model, d_state) if extras else None,
        None if bounds is None else torch.tensor(bounds),
    ]


def wide(args):
    return [x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in args]


def close(found, expected, tolerance):
    assert found.shape == expected.shape
    scale = expected.double().abs().max().clamp(min=1e-30) if expected.numel() else 1.0
    return ((found.double() - expected.double()).abs() <= tolerance * scale).all()


def gradients(args, seed=1):
    """Return our gradients and the reference's, of results weighted at random."""
    y, final_state, states = selective_scan(*args)
    generator = torch.Generator().manual_seed(seed)
    grads = [torch.randn(result.shape, generator=generator) for result in (y, final_state)]
    exact = wide(args)
    expected = GRADIENT(*(grad.double() for grad in grads), REFERENCE(*exact)[2], *exact)
    return selective_scan_backward(*grads, states, *args), expected


def assert_like_the_reference(args, tolerance=1e-6, grad_tolerance=1e-5):
    for found, expected in zip(selective_scan(*args), REFERENCE(*wide(args)), strict=True):
        assert close(found, expected, tolerance)
    for found, expected in zip(*gradients(args), strict=True):
        assert close(found, expected, grad_tolerance)


def test_the_saved_states_lie_where_the_contract_has_them():
    assert op.STEPS == INTERVAL


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batch_size=st.integers(1, 3),
    seq_len=st.integers(0, 36),
    group_size=st.integers(1, 40),
    groups=st.sampled_from([None, 1, 2, 3]),
    d_state=st.integers(1, 20),
    extras=st.booleans(),
    softplus=st.booleans(),
    seed=st.integers(0, 9),
)
def test_any_size_agrees_with_the_reference(
    batch_size, seq_len, group_size, groups, d_state, extras, softplus, seed
):
    d_model = group_size * (groups or 1)
    args = arguments(
        batch_size, seq_len, d_model, d_state, groups=groups, extras=extras, softplus=softplus, seed=seed
    )
    assert_like_the_reference(args)


@pytest.mark.parametrize("d_state", [16, 64, 255, 256])
def test_many_states(d_state):
    assert_like_the_reference(arguments(1, 18, 17, d_state))


def test_every_length_to_70():
    args = arguments(1, 70, 33, 16)
    exact = REFERENCE(*wide(args))[0]
    for seq_len in range(1, 71):
        begun = [x[:, :seq_len] if i in {0, 1, 3, 4, 6} else x for i, x in enumerate(args)]
        assert close(selective_scan(*begun)[0], exact[:, :seq_len], 1e-6), seq_len


@pytest.mark.parametrize("seq_len", [15, 16, 17, 31, 32, 33, 47, 49, 63, 64, 65, 70])
def test_gradients_at_the_borders_of_chunks(seq_len):
    for found, expected in zip(*gradients(arguments(1, seq_len, 19, 4)), strict=True):
        assert close(found, expected, 1e-5)


def test_long_memory_is_as_exact_as_in_pytorch():
    """States that live for a thousand steps: an error in each decay would be made a thousand times.

    By how much the two differ depends on the processor, whose PyTorch rounds in another order.
    """
    args = arguments(1, 1024, 8, 2, extras=False, softplus=False, dt=0.02)
    args[2] = args[2] / 80 - 0.05
    exact, single = REFERENCE(*wide(args)), REFERENCE(*args)
    for found, expected, ours in zip(selective_scan(*args)[:2], exact, single, strict=False):
        assert distance(found, expected) <= max(1.5 * distance(ours, expected), 3e-7)
    grad = torch.ones_like(args[0])
    found = selective_scan_backward(grad, None, selective_scan(*args)[2], *args)
    expected = GRADIENT(grad.double(), None, exact[2], *wide(args))
    ours = GRADIENT(grad, None, single[2], *args)
    for i in (0, 1):  # u and delta
        assert distance(found[i], expected[i]) <= max(1.5 * distance(ours[i], expected[i]), 3e-7)


def distance(found, expected):
    return ((found.double() - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("only", ["y", "final_state"])
def test_a_result_that_went_unused_has_no_gradient(only):
    args = arguments(seq_len=35)
    y, final_state, states = selective_scan(*args)
    grad_y, grad_last = torch.randn_like(y), torch.randn_like(final_state)
    given_grads = (grad_y, None) if only == "y" else (None, grad_last)
    zeros = (grad_y, grad_last * 0) if only == "y" else (grad_y * 0, grad_last)
    found = selective_scan_backward(*given_grads, states, *args)
    expected = selective_scan_backward(*zeros, states, *args)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("groups", [None, 3])
@pytest.mark.parametrize("seq_len", [1, 2, 37])
def test_one_step_at_a_time_gives_what_one_call_does(seq_len, groups):
    args = arguments(2, seq_len, 42, 16, groups=groups)
    y, final_state, _ = selective_scan(*args)
    state, ys = args[9], []
    for t in range(seq_len):
        step = [x[:, t : t + 1] if i in {0, 1, 3, 4, 6} else x for i, x in enumerate(args)]
        step[9] = state
        out, state, _ = selective_scan(*step)
        ys.append(out)
    assert close(torch.cat(ys, dim=1), y, 1e-6)
    assert close(state, final_state, 1e-6)


@pytest.mark.parametrize("d_state", [1, 5, 16, 40])
def test_a_step_agrees_with_the_reference(d_state):
    for extras in (True, False):
        args = arguments(3, 1, 37, d_state, extras=extras)
        for found, expected in zip(selective_scan(*args), REFERENCE(*wide(args)), strict=True):
            assert close(found, expected, 1e-6)


@pytest.mark.parametrize("bounds", [(0, 50), (0, 0, 1, 17, 17, 50), (0, 33, 34, 50)])
@pytest.mark.parametrize("groups", [None, 2])
def test_packed_sequences_do_not_meet(bounds, groups):
    assert_like_the_reference(arguments(1, 50, 18, 6, bounds=bounds, groups=groups))


@pytest.mark.parametrize("bounds", [(0, 0, 1, 17, 17, 50), (0, 33, 34, 50)])
def test_each_packed_sequence_begins_from_nothing_where_no_state_is_given(bounds):
    assert_like_the_reference(arguments(1, 50, 18, 6, bounds=bounds, extras=False))


def test_more_packed_sequences_than_sums_are_kept_apart():
    assert_like_the_reference(arguments(1, 40, 5, 2, bounds=tuple(range(41))))


def test_bounds_that_do_not_fit_are_refused():
    with pytest.raises(ArgumentError, match="rise from 0 to seq_len=9"):
        selective_scan(*arguments(1, 9, bounds=(0, 8)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_inputs_are_computed_in_float32(dtype):
    args = arguments(2, 37, 24, 16)
    narrow = [x.to(dtype) if i in {0, 1, 3, 4, 6} else x for i, x in enumerate(args)]
    y, final_state, _ = selective_scan(*narrow)
    exact = REFERENCE(*wide(narrow))
    assert y.dtype is dtype
    assert close(y, exact[0], torch.finfo(dtype).eps)
    assert close(final_state, exact[1], 1e-6)
    grads = selective_scan_backward(torch.ones_like(y), None, selective_scan(*narrow)[2], *narrow)
    expected = GRADIENT(torch.ones_like(exact[0]), None, exact[2], *wide(narrow))
    assert [grad.dtype for grad in grads] == [x.dtype for i, x in enumerate(narrow) if i not in {8, 10}]
    assert all(close(*pair, 2 * torch.finfo(dtype).eps) for pair in zip(grads, expected, strict=True))


def test_a_narrow_step_is_computed_in_float32():
    args = arguments(2, 1, 24, 16)
    narrow = [x.bfloat16() if i in {0, 1, 3, 4, 6} else x for i, x in enumerate(args)]
    y, final_state, _ = selective_scan(*narrow)
    exact = REFERENCE(*wide(narrow))
    assert close(y, exact[0], torch.finfo(torch.bfloat16).eps)
    assert close(final_state, exact[1], 1e-6)


def test_inputs_may_lie_in_any_order():
    args = arguments(2, 37, 24, 8, groups=2)
    turned = [
        x.transpose(-1, -2).contiguous().transpose(-1, -2)
        if isinstance(x, torch.Tensor) and x.dim() > 1
        else x
        for x in args
    ]
    cut = [torch.cat([x, x], dim=-1)[..., : x.shape[-1]] if isinstance(x, torch.Tensor) else x for x in args]
    for strided in (turned, cut):
        pairs = [*zip(selective_scan(*strided), selective_scan(*args), strict=True)]
        pairs += zip(gradients(strided)[0], gradients(args)[0], strict=True)
        assert all(torch.equal(*pair) for pair in pairs)


@contextmanager
def threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("bounds", [None, (0, 30, 60, 61, 300)])
def test_results_are_the_same_to_the_bit_on_two_threads(bounds):
    args = arguments(2 if bounds is None else 1, 300, 160, 4, bounds=bounds)
    results = []
    for count in (1, 2):
        with threads(count):
            results.append([*selective_scan(*args), *gradients_of_ones(args)])
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


def gradients_of_ones(args):
    y, final_state, states = selective_scan(*args)
    return selective_scan_backward(torch.ones_like(y), torch.ones_like(final_state), states, *args)


def test_memory_that_nobody_wrote_is_not_read():
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    try:
        assert torch.empty(8).isnan().all()
        for args in (
            arguments(2, 37, 21, 5),
            arguments(1, 1, 21, 5),
            arguments(1, 0, 3, 2),
            arguments(1, 33, 9, 3, bounds=(0, 0, 33)),
        ):
            found = [*selective_scan(*args), *gradients_of_ones(args)]
            assert not any(tensor.isnan().any() for tensor in found)
    finally:
        torch.use_deterministic_algorithms(mode=False)


@pytest.mark.parametrize("seq_len", [1, 20])
@pytest.mark.parametrize("step", [0.0, 1e-42, 1e-30, 3.0, 50.0, 1e4])
def test_steps_of_any_size(step, seq_len):
    args = arguments(1, seq_len, 18, 16, extras=False, softplus=False)
    args[1] = torch.full_like(args[1], step)
    args[9] = torch.randn(1, 18, 16)
    for found, expected in zip(selective_scan(*args), REFERENCE(*wide(args)), strict=True):
        assert close(found, expected, 1e-6)
    if step != 1e-42:  # gradients of a denormal are products of denormals
        for found, expected in zip(*gradients(args), strict=True):
            assert close(found, expected, 1e-5)


@pytest.mark.parametrize("shift", [-200.0, -90.0, 90.0])
def test_softplus_at_its_ends(shift):
    args = arguments(1, 20, 18, 4, extras=False)
    args[1] = args[1] + shift
    for found, expected in zip(selective_scan(*args), REFERENCE(*wide(args)), strict=True):
        assert torch.isfinite(found).all()
        assert (found - expected).abs().max() <= 1e-6 * max(expected.abs().max(), 1e-20)


@pytest.mark.parametrize("seq_len", [1, 20])
def test_growing_states_overflow_as_the_reference_does(seq_len):
    args = arguments(1, seq_len, 18, 4, extras=False, softplus=False)
    args[1] = torch.full_like(args[1], 1.0)
    args[2] = torch.linspace(-100, 100, 72).reshape(18, 4)
    args[9] = torch.randn(1, 18, 4)
    for found, expected in zip(selective_scan(*args)[:2], REFERENCE(*args)[:2], strict=True):
        finite = expected.isfinite()
        assert not found[~finite].isfinite().any()
        assert torch.allclose(found[finite], expected[finite], rtol=1e-3, atol=1e-6)


def test_a_nan_stays_where_it_is():
    args = arguments(1, 20, 18, 4)
    args[1][0, 7, 3] = float("nan")
    y = selective_scan(*args)[0]
    assert y[0, 7:, 3].isnan().all()
    assert not y[0, :7].isnan().any()
    assert not y[0, :, :3].isnan().any()


def test_there_may_be_nothing_to_do():
    for batch_size, seq_len, d_model in ((0, 4, 3), (2, 0, 3), (2, 4, 0)):
        args = arguments(batch_size, seq_len, d_model, 2)
        y, final_state, _ = selective_scan(*args)
        assert y.shape == args[0].shape
        if seq_len == 0:
            assert torch.equal(final_state, args[9])
        for grad, like in zip(
            gradients_of_ones(args), [x for i, x in enumerate(args) if i not in {8, 10}], strict=True
        ):
            assert grad.shape == like.shape
            assert grad.isfinite().all()


def test_float64_is_left_to_the_next_backend():
    args = wide(arguments())
    assert selective_scan(*args) is NotImplemented
    assert selective_scan_backward(args[0], None, torch.empty(0), *args) is NotImplemented
