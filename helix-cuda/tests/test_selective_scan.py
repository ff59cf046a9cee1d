"""The selective scan in Triton against the contract's reference in float64."""

from __future__ import annotations

import pytest
import torch

from helix_cpu.backend import CPUBackend
from helix_cuda.ops import selective_scan as module
from helix_cuda.ops import slots
from helix_kernel.backends import BackendSelector
from helix_ssm.ops import selective_scan
from helix_ssm.ops.selective_scan import INTERVAL, reference

pytestmark = pytest.mark.usefixtures("serve")
ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}
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
    }


def _with_gradients(case):
    leaves = {
        name: value.detach().requires_grad_()
        for name, value in case.items()
        if value is not None and value.is_floating_point()
    }
    results = selective_scan(**case | leaves, delta_softplus=True, return_final_state=True)
    generator = torch.Generator().manual_seed(1)
    grads = [torch.randn(result.shape, generator=generator).to(result) for result in results]
    torch.autograd.backward(results, grads)
    return [*(result.detach() for result in results), *(leaf.grad for leaf in leaves.values())]


def _exact(case):
    wide = {
        name: value.double() if value is not None and value.is_floating_point() else value
        for name, value in case.items()
    }
    return _with_gradients(wide)


def _assert_close(found, expected, tolerance):
    for one, other in zip(found, expected, strict=True):
        if other.numel():
            assert (one.double() - other).abs().max() <= tolerance * max(other.abs().max(), 1e-30)


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
def test_it_rounds_once(device, dtype):
    case = _case(device, dtype=dtype)
    _assert_close(_with_gradients(case), _exact(case), 2 * ROUNDING[dtype])


@pytest.mark.usefixtures("short_slots")
@pytest.mark.parametrize("seq_len", [1, SLOT - 1, SLOT, SLOT + 1, 2 * SLOT + 5])
def test_a_row_may_be_cut_anywhere(device, seq_len):
    case = _case(device, seq_len=seq_len)
    _assert_close(_with_gradients(case), _exact(case), 1e-5)


def test_rows_of_several_saved_states_in_one_slot(device):
    case = _case(device, rows=2, seq_len=INTERVAL + 3)
    _assert_close(_with_gradients(case), _exact(case), 1e-5)


def test_slots_of_several_saved_states(device, monkeypatch):
    monkeypatch.setattr(slots, "SIZES", (2 * INTERVAL,))
    case = _case(device, rows=2, seq_len=2 * INTERVAL + 3, extras=False)
    _assert_close(_with_gradients(case), _exact(case), 1e-5)


@pytest.mark.parametrize(("channels", "states"), [(1, 1), (17, 3), (33, 17), (3, 33), (5, 256)])
def test_any_number_of_channels_and_states(device, channels, states):
    case = _case(device, channels=channels, states=states, seq_len=3)
    _assert_close(_with_gradients(case), _exact(case), 1e-5)


@pytest.mark.usefixtures("short_slots")
def test_groups_have_projections_of_their_own(device):
    case = _case(device, rows=2, channels=6, groups=2, seq_len=SLOT + 2)
    _assert_close(_with_gradients(case), _exact(case), 1e-5)


@pytest.mark.usefixtures("short_slots")
@pytest.mark.parametrize("state", [True, False])
def test_packed_sequences_do_not_see_one_another(device, state):
    bounds = (0, 0, 1, SLOT + 4, SLOT + 4, SLOT + 9, SLOT + 9)
    case = _case(device, seq_len=bounds[-1], bounds=bounds, state=state)
    _assert_close(_with_gradients(case), _exact(case), 1e-5)


@pytest.mark.usefixtures("short_slots")
@pytest.mark.parametrize("rate", [1e-3, 300.0, -0.2])
def test_states_may_last_vanish_at_once_or_grow(device, rate):
    case = _case(device, rate=rate, seq_len=SLOT + 5, extras=False)
    _assert_close(_with_gradients(case), _exact(case), 1e-5)


def test_step_sizes_may_be_tiny(device):
    """The slope of softplus is as small as they are, and must keep its digits."""
    case = _case(device, extras=False)
    case["delta"] = case["delta"] - 12
    _assert_close(_with_gradients(case), _exact(case), 1e-5)


@pytest.mark.usefixtures("short_slots")
def test_slices_of_a_projection_serve_as_they_are(device):
    case = _case(device, seq_len=SLOT + 1, rows=2)
    expected = _with_gradients(case)
    for name in ("u", "delta", "z", "B", "C"):
        case[name] = torch.cat([case[name]] * 2, -1)[..., : case[name].shape[-1]]
    for found, other in zip(_with_gradients(case), expected, strict=True):
        assert torch.equal(found, other)


@pytest.mark.parametrize(("rows", "seq_len"), [(0, 5), (2, 0)])
def test_nothing_to_scan(device, rows, seq_len):
    case = _case(device, rows=rows, seq_len=seq_len)
    _assert_close(_with_gradients(case), _exact(case), 1e-6)


@pytest.mark.usefixtures("short_slots")
def test_a_run_repeats_bit_by_bit(device):
    case = _case(device, seq_len=SLOT + 3)
    for first, second in zip(_with_gradients(case), _with_gradients(case), strict=True):
        assert torch.equal(first, second)


def test_a_step_is_one_launch(device, monkeypatch):
    launches = []
    for name in ("local_states", "pass_states", "scan"):
        kernel = getattr(module.kernels, name)
        monkeypatch.setattr(module.kernels, name, _Counted(kernel, launches))
    case = _case(device, rows=2, seq_len=1)
    selective_scan(**case, delta_softplus=True)
    assert len(launches) == 1


class _Counted:
    def __init__(self, kernel, launches):
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid):
        self.launches.append(grid)
        return self.kernel[grid]


def test_float64_and_very_many_states_are_left_to_others(device):
    for options in ({"dtype": torch.float64}, {"states": 257}):
        arguments = list(_case(device, seq_len=1, **options).values())
        assert module.selective_scan(*arguments[:8], True, *arguments[8:]) is NotImplemented


def test_the_saved_states_lie_where_the_contract_has_them(device):
    arguments = list(_case(device, rows=2, seq_len=2 * INTERVAL + 1, groups=3, extras=False).values())
    given = (*arguments[:8], True, *arguments[8:])
    _assert_close([module.selective_scan(*given)[2]], [reference(*given)[2].double()], 1e-6)


@pytest.mark.usefixtures("short_slots")
def test_it_agrees_with_helix_cpu(device):
    if not CPUBackend().probe().available:
        pytest.skip("helix-cpu has no kernels here")
    case = _case(device, seq_len=SLOT + 5, channels=9)
    found = _with_gradients(case)
    on_cpu = {name: None if value is None else value.cpu() for name, value in case.items()}
    with BackendSelector({"cpu-simd": CPUBackend()}).using(["cpu-simd"]):
        expected = _with_gradients(on_cpu)
    _assert_close([each.cpu() for each in found], [each.double() for each in expected], 1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: too much to interpret")
@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("rows", [1, 8])
def test_at_the_size_of_a_model_it_is_right_and_the_same_each_time(device, rows, dtype):
    case = _case(device, rows=rows, seq_len=512, channels=2048, states=16, dtype=dtype)
    found = _with_gradients(case)
    _assert_close(found, _exact(case), 2 * ROUNDING[dtype] + 1e-5)
    for _ in range(20):
        assert all(torch.equal(a, b) for a, b in zip(found, _with_gradients(case), strict=True))
