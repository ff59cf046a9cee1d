"""The kernels of gla, rwkv7 and the gated delta rule: sizes, streaming, extremes, dtypes, strides."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import helix_ssm.ops  # noqa: F401 - defines the contracts
from helix_cpu.ops.gated_delta_rule import gated_delta_rule, gated_delta_rule_backward
from helix_cpu.ops.gla import gla, gla_backward
from helix_cpu.ops.rwkv7 import rwkv7, rwkv7_backward
from helix_kernel.errors import ArgumentError
from helix_kernel.ops import reference

OPS = {
    "gla": (gla, gla_backward),
    "rwkv7": (rwkv7, rwkv7_backward),
    "gated_delta_rule": (gated_delta_rule, gated_delta_rule_backward),
}
pytestmark = pytest.mark.parametrize("name", OPS)
every_isa = pytest.mark.usefixtures("isa")


class Size(NamedTuple):
    batch_size: int = 1
    seq_len: int = 19
    n_heads: int = 2
    k_dim: int = 20
    v_dim: int = 23


def drawn(name, size, seed=0, dtype=torch.float32):
    """Draw the tokens of a call, without scale, state and bounds."""
    generator = torch.Generator().manual_seed(seed)
    heads = (size.batch_size, size.seq_len, size.n_heads)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    q, k, v = (
        draw(*heads, size.k_dim),
        F.normalize(draw(*heads, size.k_dim), dim=-1),
        draw(*heads, size.v_dim),
    )
    if name == "gated_delta_rule":
        found = (q, k, v, -draw(*heads).abs() / 4, draw(*heads).sigmoid())
    elif name == "gla":
        found = (q, k, v, -draw(*heads, size.k_dim).abs() / 4)
    else:
        removal = F.normalize(draw(*heads, size.k_dim), dim=-1)
        strength = draw(*heads, size.k_dim).sigmoid()
        found = (q, -draw(*heads, size.k_dim).abs() / 4, k, v, -removal, removal * strength)
    return tuple(tensor.to(dtype) for tensor in found)


def arguments(name, tokens, state=None, bounds=None):
    return (*tokens, state, bounds) if name == "rwkv7" else (*tokens, 0.5, state, bounds)


def state_of(size, n_sequences=None):
    shape = (n_sequences or size.batch_size, size.n_heads, size.k_dim, size.v_dim)
    return torch.randn(shape, generator=torch.Generator().manual_seed(9))


def double(args):
    return tuple(x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in args)


def assert_close(found, expected, tolerance):
    for i, (left, right) in enumerate(zip(found, expected, strict=True)):
        assert left.shape == right.shape
        assert left.is_contiguous()
        if right.numel():
            worst = (left.double() - right.double()).abs().max() / right.double().abs().max().clamp(min=1e-30)
            assert worst <= tolerance, f"tensor {i} differs by {worst:.1e} of its largest element"


def assert_agrees(name, args, tolerance=1e-6, grad_tolerance=1e-5):
    """Compare results and gradients with the reference in float64."""
    forward, backward = OPS[name]
    expected = reference(name)(*double(args))
    found = forward(*args)
    assert_close(found, expected, tolerance)
    grads = tuple(torch.randn_like(tensor) for tensor in found)
    wanted = reference(f"{name}_backward")(*double(grads), *double(args))
    assert_close(backward(*grads, *args), wanted, grad_tolerance)


@every_isa
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.builds(
        Size,
        batch_size=st.integers(1, 2),
        seq_len=st.integers(0, 70),
        n_heads=st.integers(1, 2),
        k_dim=st.integers(1, 40),
        v_dim=st.integers(1, 70),
    ),
    with_state=st.booleans(),
    seed=st.integers(0, 9),
)
def test_any_size_agrees_with_the_reference(name, size, with_state, seed):
    state = state_of(size) if with_state else None
    assert_agrees(name, arguments(name, drawn(name, size, seed), state))


@every_isa
@pytest.mark.parametrize("sizes", [(0, 2, 3, 4, 5), (2, 3, 0, 4, 5), (2, 3, 2, 0, 5), (2, 3, 2, 4, 0)])
def test_a_dimension_may_be_empty(name, sizes):
    size = Size(*sizes)
    assert_agrees(name, arguments(name, drawn(name, size), state_of(size)))


@every_isa
@pytest.mark.parametrize("v_dim", [16, 48, 80, 130])
def test_gradients_are_summed_over_every_tile_of_columns(name, v_dim):
    size = Size(1, 19, 1, 16, v_dim)
    assert_agrees(name, arguments(name, drawn(name, size), state_of(size)))


@every_isa
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 50), max_size=4))
def test_a_sequence_may_come_in_pieces(name, cuts):
    size = Size(seq_len=50)
    forward, _ = OPS[name]
    tokens = drawn(name, size)
    whole, last = forward(*arguments(name, tokens, state_of(size)))
    state, pieces = state_of(size), []
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), 50], strict=True):
        o, state = forward(*arguments(name, tuple(x[:, start:end] for x in tokens), state))
        pieces.append(o)
    assert_close([torch.cat(pieces, 1), state], [whole, last], 1e-6)


@every_isa
@pytest.mark.parametrize("with_state", [True, False])
def test_packed_sequences_have_states_of_their_own(name, with_state):
    size, bounds = Size(seq_len=22), torch.tensor([0, 0, 1, 4, 21, 22], dtype=torch.int32)
    state = state_of(size, 5) if with_state else None
    assert_agrees(name, arguments(name, drawn(name, size), state, bounds))


@every_isa
def test_the_number_of_threads_changes_no_bit(name):
    size = Size(3, 40, 3, 24, 80)
    args = arguments(name, drawn(name, size), state_of(size))
    forward, backward = OPS[name]
    grads = tuple(torch.randn_like(x) for x in forward(*args))
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append((*forward(*args), *backward(*grads, *args)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


@every_isa
@pytest.mark.parametrize("factor", [0.0, 1e-39, 1e12])
def test_values_of_any_magnitude_stay_exact(name, factor):
    size = Size()
    tokens = list(drawn(name, size))
    values = 3 if name == "rwkv7" else 2
    tokens[values] = tokens[values] * factor
    args = arguments(name, tuple(tokens), state_of(size) * factor)
    assert_close(OPS[name][0](*args), reference(name)(*double(args)), 1e-6)


@every_isa
@pytest.mark.parametrize("log_decay", [0.0, -86.0, -90.0, -torch.inf])
def test_decays_from_none_to_all(name, log_decay):
    size = Size()
    tokens = list(drawn(name, size))
    decays = 1 if name == "rwkv7" else 3
    tokens[decays] = torch.full_like(tokens[decays], log_decay)
    assert_agrees(name, arguments(name, tuple(tokens), state_of(size)))


@pytest.mark.parametrize("bounds", [[1, 19], [0, 18], [0, 12, 10, 19]])
def test_bounds_that_do_not_fit_are_refused(name, bounds):
    args = arguments(name, drawn(name, Size()), None, torch.tensor(bounds))
    with pytest.raises(ArgumentError, match="cu_seqlens"):
        OPS[name][0](*args)


def test_bounds_need_a_batch_of_one(name):
    args = arguments(name, drawn(name, Size(batch_size=2)), None, torch.tensor([0, 19]))
    with pytest.raises(ArgumentError, match="batch size is 2"):
        OPS[name][0](*args)


def test_a_tensor_too_small_is_refused(name):
    tokens = drawn(name, Size())
    for i in range(len(tokens)):
        if i == (2 if name == "rwkv7" else 1):
            continue  # the keys, by which the others are measured
        short = tuple(x[:, :-1] if i == j else x for j, x in enumerate(tokens))
        with pytest.raises(ArgumentError, match="has shape"):
            OPS[name][0](*arguments(name, short))
    with pytest.raises(ArgumentError, match="initial_state"):
        OPS[name][0](*arguments(name, tokens, state_of(Size(k_dim=19))))


def test_arguments_may_have_any_strides(name):
    size = Size(batch_size=2)
    tokens = drawn(name, size)
    state = state_of(size)
    spread = tuple(torch.stack([x, torch.full_like(x, torch.nan)], -1)[..., 0] for x in tokens)
    turned = tuple(x.transpose(0, 1).contiguous().transpose(0, 1) for x in tokens)
    sliced = tuple(torch.cat([x, torch.full_like(x, torch.nan)], -1)[..., : x.shape[-1]] for x in tokens)
    turned_state = state.transpose(2, 3).contiguous().transpose(2, 3)
    forward, backward = OPS[name]
    plain = forward(*arguments(name, tokens, state))
    grads = tuple(torch.randn_like(x) for x in plain)
    for strided in (spread, turned, sliced):
        args = arguments(name, strided, turned_state)
        assert_close(forward(*args), plain, 0.0)
        turned_grads = tuple(x.transpose(0, 1).contiguous().transpose(0, 1) for x in grads)
        assert_close(backward(*turned_grads, *args), backward(*grads, *arguments(name, tokens, state)), 0.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_inputs_are_computed_in_float32(name, dtype):
    size = Size()
    args = arguments(name, drawn(name, size, dtype=dtype), state_of(size))
    forward, backward = OPS[name]
    o, final_state = forward(*args)
    assert (o.dtype, final_state.dtype) == (dtype, torch.float32)
    expected = reference(name)(*double(args))
    assert_close([o], expected[:1], torch.finfo(dtype).eps / 2)
    assert_close([final_state], expected[1:], 1e-6)
    grads = (torch.randn_like(o), torch.randn_like(final_state))
    found = backward(*grads, *args)
    given_tensors = [x for x in args if isinstance(x, torch.Tensor)]
    assert [x.dtype for x in found] == [x.dtype for x in given_tensors]
    assert_close(found, reference(f"{name}_backward")(*double(grads), *double(args)), torch.finfo(dtype).eps)


def test_dtypes_may_be_mixed(name):
    size = Size()
    tokens = tuple(x.bfloat16() if i % 2 else x for i, x in enumerate(drawn(name, size)))
    args = arguments(name, tokens, state_of(size))
    o, final_state = OPS[name][0](*args)
    values = tokens[3 if name == "rwkv7" else 2]
    assert o.dtype is values.dtype
    assert_close([final_state], reference(name)(*double(args))[1:], 1e-6)


def test_float64_is_left_to_the_next_backend(name):
    args = arguments(name, drawn(name, Size(), dtype=torch.float64))
    forward, backward = OPS[name]
    assert forward(*args) is NotImplemented
    grad = torch.ones(1, 19, 2, 23, dtype=torch.float64)
    assert backward(grad, None, *args) is NotImplemented


def test_one_result_alone_may_have_a_gradient(name):
    size = Size()
    args = arguments(name, drawn(name, size), state_of(size))
    o, final_state = (torch.randn_like(x) for x in OPS[name][0](*args))
    backward, gradient = OPS[name][1], reference(f"{name}_backward")
    assert_close(backward(o, None, *args), gradient(o.double(), None, *double(args)), 1e-5)
    expected = gradient(None, final_state.double(), *double(args))
    assert_close(backward(None, final_state, *args), expected, 1e-5)
