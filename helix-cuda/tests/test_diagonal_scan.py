"""The diagonal scan in Triton against the contract's reference in float64 or complex128."""

from __future__ import annotations

import pytest
import torch
from against_float64 import ROUNDING, assert_close, assert_repeats, exact
from against_float64 import assert_exact as assert_exact_from

from helix_cuda.ops import diagonal_scan as module
from helix_cuda.ops import slots
from helix_ssm.ops import diagonal_scan

pytestmark = pytest.mark.usefixtures("serve")
SLOT = 16
EITHER = pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)


@pytest.fixture
def short_slots(monkeypatch):
    """Short sequences are cut too."""
    monkeypatch.setattr(slots, "SIZES", (SLOT,))


def _case(
    device, *, rows=1, seq_len=5, channels=3, dtype=torch.float32, state=True, bounds=None,
    constant=False, scale=1.0,
):  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    wide = torch.complex64 if dtype.is_complex else torch.float32

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=wide).to(device)

    x = (rows, seq_len, channels)
    a = draw(channels) if constant else draw(*x)
    n_states = rows if bounds is None else len(bounds) - 1
    return {
        "a": (scale * a / (1 + a.abs())).to(dtype),
        "b": draw(*x).to(dtype),
        "initial_state": draw(n_states, channels) if state else None,
        "cu_seqlens": None if bounds is None else torch.tensor(bounds, device=device),
        "return_final_state": True,
    }


def assert_exact(case, tolerance=1e-5):
    """Hold even a result that is small everywhere to its own size."""
    assert_exact_from(diagonal_scan, case, tolerance, floor=1e-30)


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
def test_it_rounds_once(device, dtype):
    case = _case(device, dtype=dtype, channels=33)
    assert_exact(case, 2 * ROUNDING[dtype])


@EITHER
@pytest.mark.usefixtures("short_slots")
@pytest.mark.parametrize("seq_len", [1, SLOT, 2 * SLOT + 5])
def test_a_row_may_be_cut_anywhere(device, seq_len, dtype):
    case = _case(device, seq_len=seq_len, dtype=dtype)
    assert_exact(case)


def test_rows_that_are_one_slot_keep_several_states_for_the_gradient(device):
    case = _case(device, rows=2, seq_len=2 * SLOT + 3)
    assert_exact(case)


def test_slots_keep_several_states_for_the_gradient(device, monkeypatch):
    monkeypatch.setattr(slots, "SIZES", (2 * SLOT,))
    case = _case(device, rows=2, seq_len=2 * SLOT + 3)
    assert_exact(case)


@EITHER
@pytest.mark.usefixtures("short_slots")
@pytest.mark.parametrize("constant", [True, False])
def test_packed_sequences_do_not_see_one_another(device, constant, dtype):
    bounds = (0, 0, 1, SLOT + 4, SLOT + 4)
    case = _case(device, seq_len=bounds[-1], bounds=bounds, constant=constant, dtype=dtype)
    assert_exact(case)


@pytest.mark.usefixtures("short_slots")
def test_packed_sequences_begin_from_nothing_without_states(device):
    case = _case(device, seq_len=SLOT + 4, bounds=(0, 3, SLOT + 4), state=False)
    assert_exact(case)


@pytest.mark.usefixtures("short_slots")
@pytest.mark.parametrize("scale", [0.0, 1e-30, 2.0])
def test_states_may_vanish_at_once_or_grow(device, scale):
    case = _case(device, scale=scale, seq_len=SLOT + 5)
    assert_exact(case)


@pytest.mark.usefixtures("short_slots")
@pytest.mark.filterwarnings("ignore:overflow encountered")  # of NumPy, which the interpreter is made of
def test_growth_beyond_all_bounds_leaves_nothing_as_it_is(device):
    """The product of a slot's factors is infinite, and no state is there to be multiplied."""
    a, b = (torch.zeros(1, 2 * SLOT, 1, device=device) for _ in range(2))
    a[:, :SLOT] = 1e3
    b[:, -1] = 1.0
    h = diagonal_scan(a, b)
    assert torch.equal(h, b)


@EITHER
@pytest.mark.usefixtures("short_slots")
def test_slices_and_conjugates_serve_as_they_are(device, dtype):
    case = _case(device, seq_len=SLOT + 1, rows=2, channels=1, dtype=dtype)
    for name in ("a", "b"):
        value = case[name].conj().resolve_conj()
        case[name] = torch.cat([value] * 2, -1)[..., : value.shape[-1]].conj()
    assert_exact(case)


@EITHER
@pytest.mark.parametrize(("rows", "seq_len"), [(0, 5), (2, 0)])
def test_nothing_to_scan(device, rows, seq_len, dtype):
    case = _case(device, rows=rows, seq_len=seq_len, dtype=dtype)
    assert_exact(case, 1e-6)


@pytest.mark.usefixtures("short_slots")
def test_a_run_repeats_bit_by_bit(device):
    case = _case(device, seq_len=SLOT + 3)
    assert_repeats(diagonal_scan, case)


def test_a_step_is_one_launch(device, monkeypatch):
    for name in ("local_states", "pass_states"):
        monkeypatch.setattr(module.kernels, name, None)
    case = _case(device, rows=2, seq_len=1)
    assert_close(diagonal_scan(**case), exact(diagonal_scan, case)[:2], 1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: too much to interpret")
@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("rows", [1, 8])
def test_at_the_size_of_a_model_it_is_right_and_the_same_each_time(device, rows, dtype):
    case = _case(device, rows=rows, seq_len=512, channels=2048, dtype=dtype)
    assert_exact(case, 2 * ROUNDING[dtype] + 1e-5)
    assert_repeats(diagonal_scan, case, times=20)
