"""The selective scan in Triton against the contract's reference in float64."""

from __future__ import annotations

import pytest
import torch
from against_float64 import DTYPES, ROUNDING, assert_close, assert_repeats
from against_float64 import assert_exact as assert_exact_from

from helix_cuda.ops import selective_scan as module
from helix_cuda.ops import slots
from helix_kernel.ops import defined
from helix_ssm.ops import selective_scan
from helix_ssm.ops.selective_scan import INTERVAL, reference

pytestmark = pytest.mark.usefixtures("serve")
SLOT = 16


@pytest.fixture
def short_slots(monkeypatch):
    """Short sequences are cut too."""
    monkeypatch.setattr(slots, "SIZES", (SLOT,))


def _case(
    device, *, rows=1, seq_len=5, channels=3, states=4, groups=None, dtype=torch.float32,
    state=True, extras=True, bounds=None, rate=1.0,
):  # fmt: skip
    generator = torch.Generator().manual_seed(0)

    def draw(*shape, dtype=dtype):
        return torch.randn(shape, generator=generator).to(device, dtype)

    inner = (groups, states) if groups else (states,)
    n_states = rows if bounds is None else len(bounds) - 1
    x = (rows, seq_len, channels)
    return {
        "u": draw(*x),
        "delta": draw(*x),
        "A": -rate * draw(channels, states, dtype=torch.float32).exp(),
        "B": draw(rows, seq_len, *inner),
        "C": draw(rows, seq_len, *inner),
        "D": draw(channels, dtype=torch.float32) if extras else None,
        "z": draw(*x) if extras else None,
        "delta_bias": draw(channels, dtype=torch.float32) if extras else None,
        "initial_state": draw(n_states, channels, states, dtype=torch.float32) if state else None,
        "cu_seqlens": None if bounds is None else torch.tensor(bounds, device=device),
        "delta_softplus": True,
        "return_final_state": True,
    }


def assert_exact(case, tolerance=1e-5):
    """Hold even a gradient that is small everywhere to its own size."""
    assert_exact_from(selective_scan, case, tolerance, floor=1e-30)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_it_rounds_once(device, dtype):
    case = _case(device, dtype=dtype)
    assert_exact(case, 2 * ROUNDING[dtype])


@pytest.mark.usefixtures("short_slots")
@pytest.mark.parametrize("seq_len", [1, SLOT, 2 * SLOT + 5])
def test_a_row_may_be_cut_anywhere(device, seq_len):
    case = _case(device, seq_len=seq_len)
    assert_exact(case)


def test_rows_of_several_saved_states_in_one_slot(device):
    case = _case(device, rows=2, seq_len=INTERVAL + 3)
    assert_exact(case)


def test_slots_of_several_saved_states(device, monkeypatch):
    monkeypatch.setattr(slots, "SIZES", (2 * INTERVAL,))
    case = _case(device, seq_len=2 * INTERVAL + 3, channels=1, extras=False)
    assert_exact(case)


@pytest.mark.parametrize(("channels", "states"), [(1, 1), (17, 3), (33, 17), (3, 33), (5, 256)])
def test_any_number_of_channels_and_states(device, channels, states):
    case = _case(device, channels=channels, states=states, seq_len=3)
    assert_exact(case)


@pytest.mark.usefixtures("short_slots")
def test_groups_have_projections_of_their_own(device):
    case = _case(device, rows=2, channels=4, groups=2, seq_len=SLOT + 2, extras=False)
    assert_exact(case)


@pytest.mark.usefixtures("short_slots")
@pytest.mark.parametrize(("bounds", "state"), [((0, 0, 1, SLOT + 4, SLOT + 4), True), ((0, 2, 5), False)])
def test_packed_sequences_do_not_see_one_another(device, bounds, state):
    case = _case(device, seq_len=bounds[-1], bounds=bounds, state=state)
    assert_exact(case)


@pytest.mark.usefixtures("short_slots")
@pytest.mark.parametrize("rate", [1e-3, 300.0, -0.2])
def test_states_may_last_vanish_at_once_or_grow(device, rate):
    case = _case(device, rate=rate, seq_len=SLOT + 1, channels=1, extras=False)
    assert_exact(case)


def test_step_sizes_may_be_tiny(device):
    """The slope of softplus is as small as they are, and must keep its digits."""
    case = _case(device, extras=False)
    case["delta"] = case["delta"] - 12
    assert_exact(case)


@pytest.mark.usefixtures("short_slots")
def test_slices_of_a_projection_serve_as_they_are(device):
    case = _case(device, rows=2)
    for name in ("u", "delta", "z", "B", "C"):
        case[name] = torch.cat([case[name]] * 2, -1)[..., : case[name].shape[-1]]
    assert_exact(case)


@pytest.mark.parametrize(("rows", "seq_len"), [(0, 5), (2, 0)])
def test_nothing_to_scan(device, rows, seq_len):
    case = _case(device, rows=rows, seq_len=seq_len)
    assert_exact(case, 1e-6)


@pytest.mark.usefixtures("short_slots")
def test_a_run_repeats_bit_by_bit(device):
    case = _case(device, seq_len=SLOT + 3)
    assert_repeats(selective_scan, case)


def test_a_step_is_one_launch(device, monkeypatch):
    launches = []
    for name in ("local_states", "pass_states", "scan"):
        kernel = getattr(module.kernels, name)
        monkeypatch.setattr(module.kernels, name, _Counted(kernel, launches))
    case = _case(device, rows=2, seq_len=1)
    selective_scan(**case)
    assert len(launches) == 1


class _Counted:
    def __init__(self, kernel, launches):
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid):
        self.launches.append(grid)
        return self.kernel[grid]


def test_the_saved_states_lie_where_the_contract_has_them(device):
    case = _case(device, rows=2, seq_len=2 * INTERVAL + 1, groups=3, extras=False)
    given = [case[name] for name in ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "delta_softplus")]
    given += [case["initial_state"], None]
    found = defined()["selective_scan"](*given)[2]
    assert_close([found], [reference(*given)[2].double()], 1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: too much to interpret")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rows", [1, 8])
def test_at_the_size_of_a_model_it_is_right_and_the_same_each_time(device, rows, dtype):
    case = _case(device, rows=rows, seq_len=512, channels=2048, states=16, dtype=dtype)
    assert_exact(case, 2 * ROUNDING[dtype] + 1e-5)
    assert_repeats(selective_scan, case, times=20)
