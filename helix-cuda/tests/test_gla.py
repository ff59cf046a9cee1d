"""Gated linear attention in Triton against the contract's reference in float64."""

from __future__ import annotations

import pytest
import torch

from helix_cpu.backend import CPUBackend
from helix_cuda.ops import gla as module
from helix_kernel.backends import BackendSelector
from helix_ssm.ops import gla

pytestmark = pytest.mark.usefixtures("serve")
ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}
CHUNK = 16


def _case(device, *, rows=1, seq_len=20, heads=1, keys=5, values=3, dtype=torch.float32, **options):
    """Draw arguments; `options` are decay, state and the bounds of packed sequences."""
    generator = torch.Generator().manual_seed(0)
    bounds = options.get("bounds")

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    n_states = rows if bounds is None else len(bounds) - 1
    tokens = rows, seq_len, heads
    floats = {
        "q": draw(*tokens, keys),
        "k": draw(*tokens, keys),
        "v": draw(*tokens, values),
        "g": -draw(*tokens, keys).abs() * options.get("decay", 0.1),
        "initial_state": draw(n_states, heads, keys, values) if options.get("state", True) else None,
    }
    cast = {name: None if value is None else value.to(device, dtype) for name, value in floats.items()}
    return cast | {"cu_seqlens": None if bounds is None else torch.tensor(bounds, device=device)}


def _arguments(case):
    """Return a call's arguments as the contract has them."""
    return *(case[name] for name in "qkvg"), 0.5, None, None


def _with_gradients(case, *, through=(True, True), **options):
    leaves = {
        name: value.detach().requires_grad_()
        for name, value in case.items()
        if value is not None and value.is_floating_point()
    }
    results = gla(**case | leaves, **options, return_final_state=True)
    generator = torch.Generator().manual_seed(1)
    grads = [torch.randn(result.shape, generator=generator) for result in results]
    chosen = [i for i in range(2) if through[i]]
    torch.autograd.backward(
        [results[i] for i in chosen],
        [grads[i].bfloat16().to(results[i]) for i in chosen],  # the same numbers in every dtype
    )
    return [*(result.detach() for result in results), *(leaf.grad for leaf in leaves.values())]


def _exact(case, **options):
    wide = {
        name: value.double() if value is not None and value.is_floating_point() else value
        for name, value in case.items()
    }
    return _with_gradients(wide, **options)


def _assert_close(found, expected, tolerance):
    for one, other in zip(found, expected, strict=True):
        if other is None:
            assert one is None or not one.any()
        elif other.numel():
            assert (one.double() - other).abs().max() <= tolerance * max(other.abs().max(), 1)


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
def test_it_rounds_about_as_its_inputs_do(device, dtype):
    case = _case(device, dtype=dtype, seq_len=17, keys=17, values=18)
    _assert_close(_with_gradients(case), _exact(case), 2 * ROUNDING[dtype])


def test_dtypes_may_be_mixed(device):
    case = _case(device, seq_len=9)
    case |= {"q": case["q"].bfloat16(), "v": case["v"].half(), "g": case["g"].bfloat16()}
    found, expected = _with_gradients(case), _exact(case)
    assert [result.dtype for result in found[2:6]] == [case[name].dtype for name in "qkvg"]
    assert (found[0].dtype, found[1].dtype) == (torch.float16, torch.float32)
    _assert_close(found, expected, 2**-8)


@pytest.mark.parametrize("seq_len", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 5])
def test_any_length(device, seq_len):
    case = _case(device, seq_len=seq_len)
    _assert_close(_with_gradients(case), _exact(case), 1e-5)


@pytest.mark.parametrize(("heads", "keys", "values"), [(3, 1, 1), (1, 16, 17), (2, 33, 3), (1, 65, 34)])
def test_any_width(device, heads, keys, values):
    case = _case(device, seq_len=5, heads=heads, keys=keys, values=values)
    _assert_close(_with_gradients(case), _exact(case), 1e-5)


@pytest.mark.parametrize("state", [True, False])
def test_packed_sequences_of_any_length_none_included(device, state):
    bounds = [0, 0, 1, 18]
    case = _case(device, seq_len=18, bounds=bounds, state=state)
    _assert_close(_with_gradients(case), _exact(case), 1e-5)


def test_rows_of_a_batch_are_sequences_apart(device):
    case = _case(device, rows=2, seq_len=5)
    _assert_close(_with_gradients(case), _exact(case), 1e-5)


@pytest.mark.parametrize("seq_len", [1, 3])
def test_outputs_are_scaled(device, seq_len):
    case = _case(device, seq_len=seq_len)
    _assert_close(_with_gradients(case, scale=3.0), _exact(case, scale=3.0), 1e-5)


@pytest.mark.parametrize("through", [(True, False), (False, True)], ids=["o", "final_state"])
def test_a_gradient_may_come_through_one_result_alone(device, through):
    case = _case(device, seq_len=3)
    _assert_close(_with_gradients(case, through=through), _exact(case, through=through), 1e-5)


@pytest.mark.parametrize("decay", [5.0, 100.0])
def test_strong_decays_keep_their_digits(device, decay):
    case = _case(device, seq_len=20, decay=decay)
    _assert_close(_with_gradients(case), _exact(case), 1e-5)


def test_a_memory_may_grow(device):
    case = _case(device, seq_len=20, decay=-0.3)
    assert case["g"].min() >= 0
    expected = _exact(case)
    assert expected[1].abs().max() > 50
    _assert_close(_with_gradients(case), expected, 1e-5)


def test_a_gate_may_empty_channels(device):
    case = _case(device, seq_len=20)
    case["g"][:, [0, 5, 16], :, ::2] = -torch.inf
    case["g"][:, 9] = -torch.inf
    _assert_close(_with_gradients(case), _exact(case), 1e-5)


def test_slices_of_a_projection_are_read_where_they_lie(device):
    case, other = (_case(device, heads=2, keys=3, seq_len=5) for _ in range(2))
    wide = torch.cat([case[name].flatten(2) for name in "qkvg"], -1)
    parts = (part.view(1, 5, 2, 3) for part in wide.split(6, dim=-1))
    case |= dict(zip("qkvg", parts, strict=True))
    assert not any(case[name].is_contiguous() for name in "qkvg")
    _assert_close(_with_gradients(case), _exact(other), 1e-5)


@pytest.mark.parametrize("sizes", [{"rows": 0}, {"seq_len": 0}, {"values": 0}], ids=str)
def test_nothing_to_do(device, sizes):
    case = _case(device, **sizes)
    found, expected = _with_gradients(case), _exact(case)
    assert [result.shape for result in found] == [result.shape for result in expected]
    _assert_close(found, expected, 1e-6)


@pytest.mark.parametrize("state", [True, False])
def test_a_decoding_step_takes_no_chunks(device, state, monkeypatch):
    monkeypatch.setattr(module, "Call", None)
    case = _case(device, rows=3, seq_len=1, heads=2, keys=17, values=33, state=state)
    expected = _exact(case)[:2]
    _assert_close(gla(**case, return_final_state=True), expected, 1e-6)


@pytest.mark.parametrize("options", [{"keys": 257}, {"dtype": torch.float64}], ids=str)
def test_wide_keys_and_float64_are_left_to_others(device, options):
    args = _arguments(_case(device, seq_len=2, **options))
    assert module.gla(*args) is NotImplemented
    assert module.gla_backward(None, None, *args) is NotImplemented


def test_the_cpus_kernels_agree(device):
    case = _case(device, seq_len=20, keys=8, values=8)
    found = _with_gradients(case)
    with BackendSelector({"cpu": CPUBackend()}).using(["cpu"]):
        cpu = {name: value if value is None else value.cpu() for name, value in case.items()}
        expected = _with_gradients(cpu)
    _assert_close([result.cpu() for result in found], [result.double() for result in expected], 1e-5)


def test_a_repeated_call_gives_the_same_bits(device):
    case = _case(device, seq_len=5, bounds=[0, 3, 5])
    for one, other in zip(_with_gradients(case), _with_gradients(case), strict=True):
        assert torch.equal(one, other)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize(
    "sizes",
    [
        {"rows": 2, "seq_len": 2048, "heads": 16, "keys": 128, "values": 128},
        {"rows": 1, "seq_len": 777, "heads": 3, "keys": 256, "values": 100},
        {"rows": 1, "seq_len": 4096, "heads": 4, "keys": 64, "values": 64, "bounds": [0, 100, 101, 4096]},
    ],
    ids=["model", "wide", "packed"],
)
def test_shapes_of_real_models(device, dtype, sizes):
    case = _case(device, dtype=dtype, **sizes)
    found = _with_gradients(case)
    _assert_close(found, _exact(case), 1e-4 if dtype is torch.float32 else 4 * ROUNDING[dtype])
    for _ in range(20):
        assert all(torch.equal(one, other) for one, other in zip(found, _with_gradients(case), strict=True))
