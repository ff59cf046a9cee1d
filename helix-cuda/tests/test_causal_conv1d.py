"""The short causal convolution in Triton against the contract's reference in float64."""

from __future__ import annotations

import pytest
import torch
from against_float64 import DTYPES, ROUNDING, assert_close, assert_exact, assert_repeats, with_gradients

from helix_cuda.ops import causal_conv1d as module
from helix_ssm.ops import causal_conv1d

pytestmark = pytest.mark.usefixtures("serve")
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
        "activation": "silu",
        "return_final_state": True,
    }


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_it_rounds_once(device, dtype):
    case = _case(device, dtype=dtype, channels=17)
    assert_exact(causal_conv1d, case, 2 * ROUNDING[dtype])


@pytest.mark.parametrize("seq_len", [1, 2, SLOT, SLOT + 1, 2 * SLOT + 5])
def test_any_length(device, seq_len):
    case = _case(device, seq_len=seq_len)
    assert_exact(causal_conv1d, case)


@pytest.mark.parametrize(
    ("width", "state"), [(1, True), (2, False), (3, True), (4, False), (4, True), (5, False), (9, True)]
)
def test_any_number_of_taps(device, width, state):
    case = _case(device, width=width, state=state)
    assert_exact(causal_conv1d, case)


@pytest.mark.parametrize("channels", [1, 16, 33, 300])
def test_any_number_of_channels(device, channels):
    case = _case(device, rows=1, seq_len=3, channels=channels)
    assert_exact(causal_conv1d, case)


@pytest.mark.parametrize(("width", "state"), [(1, False), (2, True), (4, False), (4, True), (6, True)])
def test_packed_sequences_do_not_see_each_other(device, width, state):
    bounds = [0, 0, 1, 3, 3, 20, 20]
    case = _case(device, rows=1, seq_len=20, width=width, state=state, bounds=bounds)
    assert_exact(causal_conv1d, case)


def test_bounds_of_packed_sequences_may_be_int32(device):
    case = _case(device, rows=1, seq_len=9, bounds=[0, 4, 9])
    expected = with_gradients(causal_conv1d, case)
    found = with_gradients(causal_conv1d, case | {"cu_seqlens": case["cu_seqlens"].int()})
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("width", "activation", "biased"), [(4, None, True), (4, "silu", False), (6, None, False)]
)
def test_bias_and_activation_may_be_left_out(device, width, activation, biased):
    case = _case(device, width=width)
    case = case if biased else case | {"bias": None}
    assert_exact(causal_conv1d, case | {"activation": activation})


@pytest.mark.parametrize("width", [3, 6])
def test_a_gradient_through_one_result_only(device, width):
    case = _case(device, width=width)
    assert_exact(causal_conv1d, case, through=[0])
    x = case["x"].requires_grad_()
    _, last = causal_conv1d(**case)
    (grad,) = torch.autograd.grad(last.sum(), x)
    assert torch.equal(grad[:, -width + 1 :], torch.ones_like(grad[:, -width + 1 :]))
    assert not grad[:, : -width + 1].any()


@pytest.mark.parametrize("seq_len", [1, 11])
def test_slices_of_a_projection_need_no_copy_to_be_right(device, seq_len):
    case = _case(device, seq_len=seq_len, channels=9)
    wide = torch.cat([torch.full_like(case["x"], float("nan")), case["x"]], dim=-1)
    assert_exact(causal_conv1d, case | {"x": wide[..., 9:]})


def test_no_row_and_no_token(device):
    for rows, seq_len in ((0, 5), (2, 0), (0, 1)):
        case = _case(device, rows=rows, seq_len=seq_len)
        assert_exact(causal_conv1d, case, 0)


def test_chunks_of_a_sequence_go_on_where_the_last_ended(device):
    case = _case(device, seq_len=19, state=False)
    whole, _ = causal_conv1d(**case)
    state, parts = torch.zeros(2, 3, 3, device=device), []
    for part in case["x"].split([1, 9, 2, 1, 6], dim=1):
        y, state = causal_conv1d(**case | {"x": part, "initial_state": state})
        parts.append(y)
    assert_close([torch.cat(parts, dim=1)], [whole.double()], 1e-6)


@pytest.mark.parametrize("width", [4, 6])
def test_it_gives_the_same_bits_each_time(device, width):
    case = _case(device, rows=1, width=width)
    assert_repeats(causal_conv1d, case)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: too much to interpret")
@pytest.mark.parametrize("width", [2, 3, 4, 7])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_at_the_size_of_a_model_it_is_right_and_the_same_each_time(device, width, dtype, monkeypatch):
    monkeypatch.undo()
    case = _case(device, rows=8, seq_len=2048, channels=1024, width=width, dtype=dtype)
    assert_exact(causal_conv1d, case, 2 * ROUNDING[dtype] + 1e-5)
    assert_repeats(causal_conv1d, case, times=20)
