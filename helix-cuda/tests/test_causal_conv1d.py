"""The short causal convolution in Triton against the contract's reference in float64."""

from __future__ import annotations

import pytest
import torch

from helix_cpu.backend import CPUBackend
from helix_cuda.ops import causal_conv1d as module
from helix_kernel.backends import BackendSelector
from helix_ssm.ops import causal_conv1d

pytestmark = pytest.mark.usefixtures("serve")
ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}
SLOT = 8


@pytest.fixture(autouse=True)
def _short_slots(monkeypatch):
    """Short sequences are cut too."""
    monkeypatch.setattr(module, "_SHORTEST", SLOT)


def _case(device, *, rows=2, seq_len=11, channels=3, width=4, dtype=torch.float32, state=True, bounds=None):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator).to(device, dtype)

    n_states = rows if bounds is None else len(bounds) - 1
    return {
        "x": draw(rows, seq_len, channels),
        "weight": draw(channels, width),
        "bias": draw(channels),
        "initial_state": draw(n_states, width - 1, channels) if state else None,
        "cu_seqlens": None if bounds is None else torch.tensor(bounds, device=device),
    }


def _with_gradients(case, activation="silu", *, through_state=True):
    leaves = {
        name: value.detach().requires_grad_()
        for name, value in case.items()
        if value is not None and value.is_floating_point()
    }
    y, last = causal_conv1d(**case | leaves, activation=activation, return_final_state=True)
    generator = torch.Generator().manual_seed(1)
    grads = [torch.randn(result.shape, generator=generator).to(result) for result in (y, last)]
    n = 2 if through_state else 1
    torch.autograd.backward((y, last)[:n], grads[:n])
    return [y.detach(), last.detach(), *(leaf.grad for leaf in leaves.values())]


def _exact(case, **options):
    wide = {
        name: value.double() if value is not None and value.is_floating_point() else value
        for name, value in case.items()
    }
    return _with_gradients(wide, **options)


def _assert_close(found, expected, tolerance):
    for one, other in zip(found, expected, strict=True):
        if other is not None and other.numel():
            assert (one.double() - other).abs().max() <= tolerance * max(other.abs().max(), 1)


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
def test_it_rounds_once(device, dtype):
    case = _case(device, dtype=dtype, channels=17)
    _assert_close(_with_gradients(case), _exact(case), 2 * ROUNDING[dtype])


@pytest.mark.parametrize("seq_len", [1, 2, SLOT - 1, SLOT, SLOT + 1, 2 * SLOT + 5])
def test_any_length(device, seq_len):
    case = _case(device, seq_len=seq_len)
    _assert_close(_with_gradients(case), _exact(case), 1e-5)


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("state", [True, False])
def test_any_number_of_taps(device, width, state):
    case = _case(device, width=width, state=state)
    _assert_close(_with_gradients(case), _exact(case), 1e-5)


@pytest.mark.parametrize("channels", [1, 16, 33, 300])
def test_any_number_of_channels(device, channels):
    case = _case(device, rows=1, seq_len=3, channels=channels)
    _assert_close(_with_gradients(case), _exact(case), 1e-5)


@pytest.mark.parametrize("width", [1, 2, 4, 6])
@pytest.mark.parametrize("state", [True, False])
def test_packed_sequences_do_not_see_each_other(device, width, state):
    bounds = [0, 0, 1, 3, 3, 22, 30, 30]
    case = _case(device, rows=1, seq_len=30, width=width, state=state, bounds=bounds)
    _assert_close(_with_gradients(case), _exact(case), 1e-5)


def test_bounds_of_packed_sequences_may_be_int32(device):
    case = _case(device, rows=1, seq_len=9, bounds=[0, 4, 9])
    expected = _with_gradients(case)
    found = _with_gradients(case | {"cu_seqlens": case["cu_seqlens"].int()})
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("width", [4, 6])
@pytest.mark.parametrize(("activation", "biased"), [(None, True), ("silu", False), (None, False)])
def test_bias_and_activation_may_be_left_out(device, width, activation, biased):
    case = _case(device, width=width)
    case = case if biased else case | {"bias": None}
    _assert_close(_with_gradients(case, activation), _exact(case, activation=activation), 1e-5)


@pytest.mark.parametrize("width", [3, 6])
def test_a_gradient_through_one_result_only(device, width):
    case = _case(device, width=width)
    found = _with_gradients(case, through_state=False)
    _assert_close(found, _exact(case, through_state=False), 1e-5)
    x, last = case["x"].requires_grad_(), None
    _, last = causal_conv1d(**case, return_final_state=True)
    (grad,) = torch.autograd.grad(last.sum(), x)
    assert torch.equal(grad[:, -width + 1 :], torch.ones_like(grad[:, -width + 1 :]))
    assert not grad[:, : -width + 1].any()


@pytest.mark.parametrize("seq_len", [1, 11])
def test_slices_of_a_projection_need_no_copy_to_be_right(device, seq_len):
    case = _case(device, seq_len=seq_len, channels=9)
    wide = torch.cat([torch.full_like(case["x"], float("nan")), case["x"]], dim=-1)
    _assert_close(_with_gradients(case | {"x": wide[..., 9:]}), _exact(case), 1e-5)


def test_no_row_and_no_token(device):
    for rows, seq_len in ((0, 5), (2, 0), (0, 1)):
        case = _case(device, rows=rows, seq_len=seq_len)
        _assert_close(_with_gradients(case), _exact(case), 0)


def test_chunks_of_a_sequence_go_on_where_the_last_ended(device):
    case = _case(device, seq_len=19, state=False)
    whole = causal_conv1d(**case)
    state, parts = torch.zeros(2, 3, 3, device=device), []
    for part in case["x"].split([1, 9, 2, 1, 6], dim=1):
        y, state = causal_conv1d(**case | {"x": part, "initial_state": state}, return_final_state=True)
        parts.append(y)
    _assert_close([torch.cat(parts, dim=1)], [whole.double()], 1e-6)


@pytest.mark.parametrize("width", [4, 6])
def test_it_gives_the_same_bits_each_time(device, width):
    case = _case(device, width=width)
    first, second = _with_gradients(case), _with_gradients(case)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_helix_cpu_agrees(device):
    case = _case(device)
    found = _with_gradients(case)
    on_cpu = {name: None if value is None else value.cpu() for name, value in case.items()}
    with BackendSelector({"cpu-simd": CPUBackend()}).using(["cpu-simd"]):
        expected = _with_gradients(on_cpu)
    _assert_close([each.cpu() for each in found], [each.double() for each in expected], 1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: too much to interpret")
@pytest.mark.parametrize("width", [2, 3, 4, 7])
@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
def test_at_the_size_of_a_model_it_is_right_and_the_same_each_time(device, width, dtype, monkeypatch):
    monkeypatch.undo()
    case = _case(device, rows=8, seq_len=2048, channels=1024, width=width, dtype=dtype)
    found = _with_gradients(case)
    _assert_close(found, _exact(case), 2 * ROUNDING[dtype] + 1e-5)
    for _ in range(20):
        assert all(torch.equal(a, b) for a, b in zip(found, _with_gradients(case), strict=True))
