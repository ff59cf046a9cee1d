"""State-space duality in Triton against the contract's reference in float64."""

from __future__ import annotations

import pytest
import torch

from helix_cpu.backend import CPUBackend
from helix_cuda.ops import _ssd
from helix_cuda.ops import ssd_scan as module
from helix_kernel.backends import BackendSelector
from helix_ssm.ops import ssd_scan

pytestmark = pytest.mark.usefixtures("serve")
ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}
CHUNK = 64  # of few states


def _case(device, *, rows=1, seq_len=20, heads=2, channels=3, states=5, dtype=torch.float32, **options):
    """Draw arguments; `options` are groups, decay, rates, skip, state and the bounds of packed sequences."""
    generator = torch.Generator().manual_seed(0)
    bounds, skip = options.get("bounds"), options.get("skip", (heads,))

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    tokens = rows, seq_len
    of_A = (*tokens, heads) if options.get("rates", False) else (heads,)
    n_states = rows if bounds is None else len(bounds) - 1
    floats = {
        "x": draw(*tokens, heads, channels),
        "dt": draw(*tokens, heads),
        "A": -options.get("decay", 1.0) * draw(*of_A).exp(),
        "B": draw(*tokens, options.get("groups", 1), states),
        "C": draw(*tokens, options.get("groups", 1), states),
        "D": None if skip is None else draw(*skip),
        "dt_bias": draw(heads),
        "initial_state": draw(n_states, heads, channels, states) if options.get("state", True) else None,
    }
    cast = {name: None if value is None else value.to(device, dtype) for name, value in floats.items()}
    packed = None if bounds is None else torch.tensor(bounds, device=device)
    return cast | {"dt_softplus": True, "dt_limit": (0.05, 2.0), "cu_seqlens": packed}


def _with_gradients(case, *, through=(True, True)):
    leaves = {
        name: value.detach().requires_grad_()
        for name, value in case.items()
        if torch.is_tensor(value) and value.is_floating_point()
    }
    results = ssd_scan(**case | leaves, return_final_state=True)
    generator = torch.Generator().manual_seed(1)
    grads = [torch.randn(result.shape, generator=generator) for result in results]
    chosen = [i for i in range(2) if through[i]]
    torch.autograd.backward(
        [results[i] for i in chosen],
        [grads[i].bfloat16().to(results[i]) for i in chosen],  # the same numbers in every dtype
    )
    return [*(result.detach() for result in results), *(leaf.grad for leaf in leaves.values())]


def _wide(case):
    return {
        name: value.double() if torch.is_tensor(value) and value.is_floating_point() else value
        for name, value in case.items()
    }


def _exact(case, **options):
    return _with_gradients(_wide(case), **options)


def _assert_close(found, expected, tolerance):
    for one, other in zip(found, expected, strict=True):
        if other is None:
            assert one is None or not one.any()
        elif other.numel():
            assert (one.double() - other).abs().max() <= tolerance * max(other.abs().max(), 1)


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
def test_it_rounds_about_as_its_inputs_do(device, dtype):
    case = _case(device, dtype=dtype, seq_len=70, channels=17, states=33)
    _assert_close(_with_gradients(case), _exact(case), 2 * ROUNDING[dtype])


def test_dtypes_may_be_mixed(device):
    case = _case(device, seq_len=9)
    case |= {"x": case["x"].bfloat16(), "B": case["B"].half(), "dt": case["dt"].bfloat16()}
    found, expected = _with_gradients(case), _exact(case)
    assert [result.dtype for result in found[:3]] == [torch.bfloat16, torch.float32, torch.bfloat16]
    _assert_close(found, expected, 2**-8)


@pytest.mark.parametrize("seq_len", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 5])
def test_any_length(device, seq_len):
    case = _case(device, seq_len=seq_len, heads=1)
    _assert_close(_with_gradients(case), _exact(case), 1e-5)


@pytest.mark.parametrize(
    ("heads", "groups", "channels", "states"), [(3, 3, 1, 1), (6, 2, 16, 17), (1, 1, 33, 3), (2, 1, 3, 129)]
)
def test_any_width_and_groups(device, heads, groups, channels, states):
    case = _case(device, seq_len=18, heads=heads, groups=groups, channels=channels, states=states)
    _assert_close(_with_gradients(case), _exact(case), 1e-5)


def test_a_rate_for_each_token_and_a_skip_weight_for_each_channel(device):
    case = _case(device, rates=True, skip=(2, 3))
    _assert_close(_with_gradients(case), _exact(case), 1e-5)


def test_packed_sequences_of_any_length_none_included(device):
    case = _case(device, seq_len=70, heads=1, bounds=[0, 0, 1, 66, 66, 70, 70])
    _assert_close(_with_gradients(case), _exact(case), 1e-5)


@pytest.mark.parametrize("bounds", [None, [0, 0, 40, 66]], ids=["rows", "packed"])
def test_segments_of_a_sequence_pass_their_state_on(device, bounds, monkeypatch):
    monkeypatch.setattr(_ssd, "_FEWEST_CHUNKS", 1)
    monkeypatch.setattr(_ssd, "_LONGEST", 16)
    case = _case(device, seq_len=66, heads=1, bounds=bounds)
    _assert_close(_with_gradients(case), _exact(case), 1e-5)


def test_heads_of_a_group_may_share_a_program(device, monkeypatch):
    monkeypatch.setattr(module, "_PROGRAMS", 2)
    case = _case(device, heads=3)
    _assert_close(_with_gradients(case), _exact(case), 1e-5)


@pytest.mark.parametrize("through", [(True, False), (False, True)], ids=["y", "final_state"])
def test_a_gradient_may_come_through_one_result_alone(device, through):
    case = _case(device, state=False, skip=None)
    _assert_close(_with_gradients(case, through=through), _exact(case, through=through), 1e-5)


@pytest.mark.parametrize("decay", [-0.1, 30.0, 1000.0])
def test_growth_and_strong_decays_keep_their_digits(device, decay):
    case = _case(device, seq_len=66, decay=decay, heads=1)
    _assert_close(_with_gradients(case), _exact(case), 2e-5)


def test_weak_decays_after_a_strong_one_keep_their_digits(device):
    case = _case(device, seq_len=30, rates=True, decay=0.01)
    case["A"][:, 3] = -1e4
    _assert_close(_with_gradients(case), _exact(case), 1e-5)


def test_small_steps_keep_their_digits(device):
    case = _case(device, state=False, skip=None) | {"dt_limit": None}
    case["dt"] = case["dt"] - 12
    found, expected = ssd_scan(**case), ssd_scan(**_wide(case))
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_slices_of_a_projection_are_read_where_they_lie(device):
    case, other = _case(device), _case(device)
    wide = torch.cat([case["x"].flatten(2), case["B"].flatten(2), case["C"].flatten(2), case["dt"]], -1)
    x, B, C, dt = wide.split([6, 5, 5, 2], dim=-1)
    case |= {"x": x.view(1, 20, 2, 3), "B": B.view(1, 20, 1, 5), "C": C.view(1, 20, 1, 5), "dt": dt}
    assert not any(case[name].is_contiguous() for name in ("x", "B", "C", "dt"))
    _assert_close(_with_gradients(case), _exact(other), 1e-5)


@pytest.mark.parametrize("sizes", [{"rows": 0}, {"seq_len": 0}, {"channels": 0}, {"states": 0}], ids=str)
def test_nothing_to_do(device, sizes):
    case = _case(device, **sizes)
    found, expected = _with_gradients(case), _exact(case)
    assert [result.shape for result in found] == [result.shape for result in expected]
    _assert_close(found, expected, 1e-6)


@pytest.mark.parametrize("state", [True, False])
def test_a_decoding_step_takes_no_chunks(device, state, monkeypatch):
    monkeypatch.setattr(module, "Call", None)
    case = _case(device, rows=3, seq_len=1, channels=17, states=33, state=state)
    expected = ssd_scan(**_wide(case), return_final_state=True)
    _assert_close(ssd_scan(**case, return_final_state=True), expected, 1e-6)


def test_many_states_and_float64_are_left_to_others(device):
    for sizes in ({"states": 513}, {"dtype": torch.float64}):
        case = _case(device, **sizes)
        names = ("x", "dt", "A", "B", "C", "D", "dt_bias", "dt_softplus", "dt_limit", "initial_state")
        args = [*(case[name] for name in names), None]
        assert module.ssd_scan(*args) is NotImplemented
        assert module.ssd_scan_backward(None, None, *args) is NotImplemented


def test_the_cpus_kernels_agree(device):
    case = _case(device, seq_len=66, channels=8, states=8)
    found = _with_gradients(case)
    with BackendSelector({"cpu": CPUBackend()}).using(["cpu"]):
        cpu = {name: value.cpu() if torch.is_tensor(value) else value for name, value in case.items()}
        expected = _with_gradients(cpu)
    _assert_close([result.cpu() for result in found], [result.double() for result in expected], 1e-5)


def test_a_repeated_call_gives_the_same_bits(device):
    case = _case(device, seq_len=20, heads=1, bounds=[0, 3, 20])
    for one, other in zip(_with_gradients(case), _with_gradients(case), strict=True):
        assert torch.equal(one, other)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize(
    "sizes",
    [
        {"rows": 2, "seq_len": 2048, "heads": 16, "channels": 64, "states": 128},
        {"seq_len": 5001, "heads": 8, "groups": 2, "channels": 64, "states": 128, "bounds": [0, 900, 5001]},
        {"seq_len": 777, "heads": 3, "groups": 3, "channels": 100, "states": 300},
    ],
    ids=str,
)
def test_the_sizes_of_models_again_and_again(device, dtype, sizes):
    case = _case(device, dtype=dtype, **sizes)
    found = _with_gradients(case)
    _assert_close(found, _exact(case), 4 * max(ROUNDING[dtype], 1e-5))
    for _ in range(20):
        for one, other in zip(_with_gradients(case), found, strict=True):
            assert torch.equal(one, other)
