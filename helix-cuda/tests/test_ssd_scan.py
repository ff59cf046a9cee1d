"""State-space duality in Triton against the contract's reference in float64."""

from __future__ import annotations

import pytest
import torch
from against_float64 import DTYPES, ROUNDING, assert_close, assert_exact, assert_repeats, exact, widened

from helix_cuda.ops import _ssd
from helix_cuda.ops import ssd_scan as module
from helix_ssm.ops import ssd_scan

pytestmark = pytest.mark.usefixtures("serve")
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
    return cast | {
        "dt_softplus": True,
        "dt_limit": (0.05, 2.0),
        "cu_seqlens": packed,
        "return_final_state": True,
    }


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_it_rounds_about_as_its_inputs_do(device, dtype):
    case = _case(device, dtype=dtype, seq_len=70, channels=17, states=33)
    assert_exact(ssd_scan, case, 2 * ROUNDING[dtype])


def test_dtypes_may_be_mixed(device):
    case = _case(device, seq_len=9)
    case |= {"x": case["x"].bfloat16(), "B": case["B"].half(), "dt": case["dt"].bfloat16()}
    found = assert_exact(ssd_scan, case, 2**-8)
    assert [result.dtype for result in found[:3]] == [torch.bfloat16, torch.float32, torch.bfloat16]


@pytest.mark.parametrize("seq_len", [1, CHUNK, CHUNK + 1, 2 * CHUNK + 5])
def test_any_length(device, seq_len):
    case = _case(device, seq_len=seq_len, heads=1)
    assert_exact(ssd_scan, case)


@pytest.mark.parametrize(
    ("heads", "groups", "channels", "states"), [(3, 3, 1, 1), (4, 2, 16, 17), (1, 1, 33, 3), (2, 1, 3, 129)]
)
def test_any_width_and_groups(device, heads, groups, channels, states):
    case = _case(device, seq_len=18, heads=heads, groups=groups, channels=channels, states=states)
    assert_exact(ssd_scan, case)


def test_a_rate_for_each_token_and_a_skip_weight_for_each_channel(device):
    case = _case(device, rates=True, skip=(2, 3))
    assert_exact(ssd_scan, case)


def test_packed_sequences_of_any_length_none_included(device):
    case = _case(device, seq_len=67, heads=1, bounds=[0, 0, 1, 67, 67])
    assert_exact(ssd_scan, case)


@pytest.mark.parametrize("bounds", [None, [0, 0, 20, 36]], ids=["rows", "packed"])
def test_segments_of_a_sequence_pass_their_state_on(device, bounds, monkeypatch):
    monkeypatch.setattr(_ssd, "_FEWEST_CHUNKS", 1)
    monkeypatch.setattr(_ssd, "_LONGEST", 16)
    case = _case(device, seq_len=36, heads=1, bounds=bounds)
    assert_exact(ssd_scan, case)


def test_heads_of_a_group_may_share_a_program(device, monkeypatch):
    monkeypatch.setattr(module, "_PROGRAMS", 2)
    case = _case(device, heads=3)
    assert_exact(ssd_scan, case)


@pytest.mark.parametrize("through", [0, 1], ids=["y", "final_state"])
def test_a_gradient_may_come_through_one_result_alone(device, through):
    case = _case(device, seq_len=3, state=False, skip=None)
    assert_exact(ssd_scan, case, through=[through])


@pytest.mark.parametrize("decay", [-0.1, 30.0, 1000.0])
def test_growth_and_strong_decays_keep_their_digits(device, decay):
    case = _case(device, seq_len=66, decay=decay, heads=1)
    assert_exact(ssd_scan, case, 2e-5)


def test_weak_decays_after_a_strong_one_keep_their_digits(device):
    case = _case(device, seq_len=30, rates=True, decay=0.01)
    case["A"][:, 3] = -1e4
    assert_exact(ssd_scan, case)


def test_small_steps_keep_their_digits(device):
    case = _case(device, state=False, skip=None) | {"dt_limit": None}
    case["dt"] = case["dt"] - 12
    assert_close(ssd_scan(**case), ssd_scan(**widened(case)), 1e-5, floor=1e-30)


def test_slices_of_a_projection_are_read_where_they_lie(device):
    case = _case(device)
    wide = torch.cat([case["x"].flatten(2), case["B"].flatten(2), case["C"].flatten(2), case["dt"]], -1)
    x, B, C, dt = wide.split([6, 5, 5, 2], dim=-1)
    case |= {"x": x.view(1, 20, 2, 3), "B": B.view(1, 20, 1, 5), "C": C.view(1, 20, 1, 5), "dt": dt}
    assert not any(case[name].is_contiguous() for name in ("x", "B", "C", "dt"))
    assert_exact(ssd_scan, case)


@pytest.mark.parametrize("sizes", [{"rows": 0}, {"seq_len": 0}, {"channels": 0}], ids=str)
def test_nothing_to_do(device, sizes):
    case = _case(device, **sizes)
    assert_exact(ssd_scan, case, 1e-6)


@pytest.mark.parametrize("state", [True, False])
def test_a_decoding_step_takes_no_chunks(device, state, monkeypatch):
    monkeypatch.setattr(module, "Call", None)
    case = _case(device, rows=3, seq_len=1, channels=17, states=33, state=state)
    assert_close(ssd_scan(**case), exact(ssd_scan, case)[:2], 1e-6)


def test_a_repeated_call_gives_the_same_bits(device):
    case = _case(device, seq_len=5, heads=1, bounds=[0, 3, 5])
    assert_repeats(ssd_scan, case)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
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
    assert_exact(ssd_scan, case, 4 * max(ROUNDING[dtype], 1e-5))
    assert_repeats(ssd_scan, case, times=20)
