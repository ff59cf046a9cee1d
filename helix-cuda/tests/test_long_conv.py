"""The long convolution in Triton, by products and by transforms, against the reference in float64."""

from __future__ import annotations

import pytest
import torch
from against_float64 import (
    DTYPES,
    ROUNDING,
    assert_close,
    assert_exact,
    assert_repeats,
    widened,
    with_gradients,
)

from helix_cuda.ops import _conv_by_products as by_products
from helix_cuda.ops import long_conv as module
from helix_ssm.ops import long_conv

pytestmark = pytest.mark.usefixtures("serve")
WAYS = {"products": "1000000", "transforms": "0"}


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    """Each of the two ways, whatever the number of taps."""
    monkeypatch.setenv(module.VARIABLE, WAYS[request.param])
    return request.param


@pytest.fixture
def _small_blocks(monkeypatch):
    """Short sequences have several blocks too."""
    monkeypatch.setattr(by_products, "_BLOCKS", (16, 16))


def _case(device, *, rows=2, seq_len=11, channels=3, taps=11, dtype=torch.float32, taps_dtype=None):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape, dtype=dtype):
        return torch.randn(shape, generator=generator).to(device, dtype)

    kernel = draw(channels, taps, dtype=taps_dtype or dtype)
    return {"x": draw(rows, seq_len, channels), "kernel": kernel, "D": draw(channels)}


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("dtype", "taps_dtype"),
    [
        (torch.float32, torch.float32),
        (torch.float32, torch.bfloat16),
        (torch.bfloat16, torch.bfloat16),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ],
    ids=str,
)
def test_it_rounds_once(device, dtype, taps_dtype):
    case = _case(device, dtype=dtype, taps_dtype=taps_dtype)
    rounding = max(ROUNDING[dtype], ROUNDING[taps_dtype])
    assert_exact(long_conv, case, 2 * rounding)


def test_taps_in_float32_are_not_rounded_to_the_inputs_dtype(device):
    x = torch.tensor([[[1.0], [-1.0]]], dtype=torch.bfloat16, device=device)
    kernel = torch.tensor([[1 + 2**-12, 1]], device=device)
    assert long_conv(x, kernel)[0, 1].item() == -(2**-12)


@pytest.mark.usefixtures("way", "_small_blocks")
@pytest.mark.parametrize(
    ("seq_len", "taps"), [(1, 1), (1, 4), (16, 16), (17, 17), (37, 37), (37, 3), (9, 40)]
)
def test_any_length_of_either(device, seq_len, taps):
    case = _case(device, seq_len=seq_len, taps=taps)
    assert_exact(long_conv, case)


@pytest.mark.usefixtures("way", "_small_blocks")
@pytest.mark.parametrize(("rows", "channels"), [(1, 1), (3, 2)])
def test_any_number_of_rows_and_channels(device, rows, channels):
    case = _case(device, rows=rows, seq_len=19, taps=19, channels=channels)
    assert_exact(long_conv, case)


@pytest.mark.usefixtures("_small_blocks")
def test_more_blocks_than_a_program_holds(device):
    case = _case(device, rows=3, seq_len=16 * 23, taps=16 + 5, channels=1)
    assert_exact(long_conv, case)


def test_blocks_of_full_size(device):
    case = _case(device, rows=1, seq_len=150, taps=130, channels=1, dtype=torch.bfloat16)
    assert_exact(long_conv, case, 2 * ROUNDING[torch.bfloat16])


@pytest.mark.usefixtures("way")
def test_the_skip_may_be_left_out(device):
    assert_exact(long_conv, _case(device) | {"D": None})


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("rows", "seq_len", "taps"), [(0, 5, 5), (2, 0, 5), (2, 5, 0)])
def test_no_row_no_token_no_tap(device, rows, seq_len, taps):
    case = _case(device, rows=rows, seq_len=seq_len, taps=taps)
    assert_exact(long_conv, case, 1e-6)


@pytest.mark.usefixtures("way")
def test_slices_of_a_projection_need_no_copy_to_be_right(device):
    case = _case(device, channels=6)
    wide = torch.cat([torch.full_like(case["x"], float("nan")), case["x"]], dim=-1)
    assert_exact(long_conv, case | {"x": wide[..., 6:], "kernel": case["kernel"].t().contiguous().t()})


@pytest.mark.usefixtures("way")
def test_it_gives_the_same_bits_each_time(device):
    case = _case(device)
    assert_repeats(long_conv, case)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: too much to interpret")
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("seq_len", "taps"), [(2048, 2048), (4097, 100), (8192, 8192)])
def test_at_the_size_of_a_model_it_is_right_and_the_same_each_time(device, dtype, seq_len, taps):
    case = _case(device, rows=4, seq_len=seq_len, taps=taps, channels=64, dtype=dtype)
    expected = with_gradients(_by_pytorch, widened(case))
    assert_close(with_gradients(long_conv, case), expected, 2 * ROUNDING[dtype] + 1e-5)
    assert_repeats(long_conv, case, times=20)


def _by_pytorch(x, kernel, D):
    """Convolve by PyTorch's transforms: the reference takes a step a lag."""
    n = 2 * x.shape[1]
    spectrum = torch.fft.rfft(x, n=n, dim=1) * torch.fft.rfft(kernel[:, : x.shape[1]], n=n).t()
    return torch.fft.irfft(spectrum, n=n, dim=1)[:, : x.shape[1]] + D * x
