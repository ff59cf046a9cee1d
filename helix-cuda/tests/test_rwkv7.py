"""RWKV-7's recurrence in Triton against the contract's reference in float64."""

from __future__ import annotations

import pytest
import torch
from against_float64 import DTYPES, ROUNDING, assert_close, assert_exact, assert_repeats, exact
from torch.nn import functional as F

from helix_ssm.ops import rwkv7

pytestmark = pytest.mark.usefixtures("serve")
CHUNK = 16


def _case(device, *, rows=1, seq_len=20, heads=1, keys=5, values=3, dtype=torch.float32, **options):
    """Draw arguments; `options` are decay, apart, state and the bounds of packed sequences."""
    generator = torch.Generator().manual_seed(0)
    bounds = options.get("bounds")

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    n_states = rows if bounds is None else len(bounds) - 1
    tokens = rows, seq_len, heads
    removal = F.normalize(draw(*tokens, keys), dim=-1)
    rate = draw(*tokens, keys).sigmoid()
    floats = {
        "r": draw(*tokens, keys),
        "w": -draw(*tokens, keys).abs() * options.get("decay", 0.1),
        "k": draw(*tokens, keys),
        "v": draw(*tokens, values),
        "a": -removal,
        "b": F.normalize(draw(*tokens, keys), dim=-1) / 2 if options.get("apart") else removal * rate,
        "initial_state": draw(n_states, heads, keys, values) if options.get("state", True) else None,
    }
    cast = {name: None if value is None else value.to(device, dtype) for name, value in floats.items()}
    packed = None if bounds is None else torch.tensor(bounds, device=device)
    return cast | {"cu_seqlens": packed, "return_final_state": True}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_it_rounds_about_as_its_inputs_do(device, dtype):
    case = _case(device, dtype=dtype, seq_len=17, keys=17, values=33)
    assert_exact(rwkv7, case, 2 * ROUNDING[dtype])


def test_dtypes_may_be_mixed(device):
    case = _case(device, seq_len=9)
    case |= {"r": case["r"].bfloat16(), "v": case["v"].half(), "w": case["w"].bfloat16()}
    found = assert_exact(rwkv7, case, 2**-8)
    assert [result.dtype for result in found[2:8]] == [case[name].dtype for name in "rwkvab"]
    assert (found[0].dtype, found[1].dtype) == (torch.float16, torch.float32)


@pytest.mark.parametrize("seq_len", [1, CHUNK, 2 * CHUNK + 5])
def test_any_length(device, seq_len):
    case = _case(device, seq_len=seq_len)
    assert_exact(rwkv7, case)


@pytest.mark.parametrize(("heads", "keys", "values"), [(3, 1, 1), (1, 16, 17), (2, 33, 3), (1, 65, 66)])
def test_any_width(device, heads, keys, values):
    case = _case(device, seq_len=5, heads=heads, keys=keys, values=values)
    assert_exact(rwkv7, case)


@pytest.mark.parametrize(("bounds", "state"), [([0, 0, 1, 18, 18], True), ([0, 2, 5], False)], ids=str)
def test_packed_sequences_of_any_length_none_included(device, bounds, state):
    assert_exact(rwkv7, _case(device, seq_len=bounds[-1], bounds=bounds, state=state))


def test_rows_of_a_batch_are_sequences_apart(device):
    case = _case(device, rows=2, seq_len=3, heads=2)
    assert_exact(rwkv7, case)


@pytest.mark.parametrize("through", [0, 1], ids=["o", "final_state"])
def test_a_gradient_may_come_through_one_result_alone(device, through):
    case = _case(device, seq_len=3)
    assert_exact(rwkv7, case, through=[through])


@pytest.mark.parametrize(("decay", "seq_len"), [(5.0, 20), (100.0, 5)])
def test_strong_decays_keep_their_digits(device, decay, seq_len):
    assert_exact(rwkv7, _case(device, seq_len=seq_len, decay=decay))


def test_a_decay_may_empty_channels(device):
    case = _case(device, seq_len=17)
    case["w"][:, [0, 5, 16], :, ::2] = -torch.inf
    case["w"][:, 9] = -torch.inf
    assert_exact(rwkv7, case)


def test_one_key_removed_and_written_again_and_again_does_not_lose_the_inverse(device):
    """Powers of the system's matrix would grow like binomial coefficients, and cancel."""
    case = _case(device, seq_len=16, decay=0.0)
    key = case["a"][:, :1].expand(-1, 16, -1, -1)
    case |= {"k": -key, "a": key, "b": -key}
    assert_exact(rwkv7, case)


def test_what_is_read_may_be_written_elsewhere(device):
    case = _case(device, seq_len=16, apart=True)
    assert_exact(rwkv7, case)


def test_slices_of_a_projection_are_read_where_they_lie(device):
    case = _case(device, heads=2, keys=3, seq_len=5)
    wide = torch.cat([case[name].flatten(2) for name in "rwkvab"], -1)
    parts = (part.view(1, 5, 2, 3) for part in wide.split(6, dim=-1))
    case |= dict(zip("rwkvab", parts, strict=True))
    assert not any(case[name].is_contiguous() for name in "rwkvab")
    assert_exact(rwkv7, case)


@pytest.mark.parametrize("sizes", [{"rows": 0}, {"seq_len": 0}, {"values": 0}], ids=str)
def test_nothing_to_do(device, sizes):
    case = _case(device, **sizes)
    assert_exact(rwkv7, case, 1e-6)


@pytest.mark.parametrize("state", [True, False])
def test_a_decoding_step_takes_no_chunks(device, state, monkeypatch):
    monkeypatch.setattr("helix_cuda.ops.rwkv7.Call", None)
    case = _case(device, rows=3, seq_len=1, heads=2, keys=17, values=33, state=state)
    assert_close(rwkv7(**case), exact(rwkv7, case)[:2], 1e-6)


def test_a_repeated_call_gives_the_same_bits(device):
    case = _case(device, seq_len=5, bounds=[0, 3, 5])
    assert_repeats(rwkv7, case)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "sizes",
    [
        {"rows": 2, "seq_len": 2048, "heads": 32, "keys": 64, "values": 64},
        {"rows": 1, "seq_len": 777, "heads": 3, "keys": 256, "values": 100},
        {"rows": 1, "seq_len": 4096, "heads": 4, "keys": 64, "values": 64, "bounds": [0, 100, 101, 4096]},
    ],
    ids=["model", "wide", "packed"],
)
def test_shapes_of_real_models(device, dtype, sizes):
    case = _case(device, dtype=dtype, **sizes)
    assert_exact(rwkv7, case, 1e-4 if dtype is torch.float32 else 4 * ROUNDING[dtype])
    assert_repeats(rwkv7, case, times=20)
