"""The long convolution in Triton, by products and by transforms, against the reference in float64."""

from __future__ import annotations

import pytest
import torch

from helix_cpu.backend import CPUBackend
from helix_cuda.ops import _conv_by_products as by_products
from helix_cuda.ops import _conv_by_transforms as by_transforms
from helix_cuda.ops import long_conv as module
from helix_cuda.ops._turning import from_channels, to_channels
from helix_kernel.backends import BackendSelector
from helix_kernel.errors import ArgumentError
from helix_ssm.ops import long_conv

pytestmark = pytest.mark.usefixtures("serve")
ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}
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
    return draw(rows, seq_len, channels), kernel, draw(channels), draw(rows, seq_len, channels)


def _with_gradients(x, kernel, D, grad):
    leaves = [None if leaf is None else leaf.detach().requires_grad_() for leaf in (x, kernel, D)]
    y = long_conv(*leaves)
    y.backward(grad)
    return [y.detach(), *(leaf.grad for leaf in leaves if leaf is not None)]


def _exact(*case):
    return _with_gradients(*(None if each is None else each.double() for each in case))


def _assert_close(found, expected, tolerance):
    for one, other in zip(found, expected, strict=True):
        if other.numel():
            assert (one.double() - other).abs().max() <= tolerance * max(other.abs().max(), 1)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("taps_dtype", [torch.float32, torch.bfloat16], ids=str)
def test_it_rounds_once(device, dtype, taps_dtype):
    case = _case(device, dtype=dtype, taps_dtype=taps_dtype)
    rounding = max(ROUNDING[dtype], ROUNDING[taps_dtype])
    _assert_close(_with_gradients(*case), _exact(*case), 2 * rounding)


def test_taps_in_float32_are_not_rounded_to_the_inputs_dtype(device):
    x = torch.tensor([[[1.0], [-1.0]]], dtype=torch.bfloat16, device=device)
    kernel = torch.tensor([[1 + 2**-12, 1]], device=device)
    assert long_conv(x, kernel)[0, 1].item() == -(2**-12)


@pytest.mark.usefixtures("way", "_small_blocks")
@pytest.mark.parametrize(
    ("seq_len", "taps"), [(1, 1), (1, 4), (15, 15), (16, 16), (17, 17), (37, 37), (37, 3), (9, 40)]
)
def test_any_length_of_either(device, seq_len, taps):
    case = _case(device, seq_len=seq_len, taps=taps)
    _assert_close(_with_gradients(*case), _exact(*case), 1e-5)


@pytest.mark.usefixtures("way", "_small_blocks")
@pytest.mark.parametrize(("rows", "channels"), [(1, 1), (3, 2), (5, 3)])
def test_any_number_of_rows_and_channels(device, rows, channels):
    case = _case(device, rows=rows, seq_len=19, taps=19, channels=channels)
    _assert_close(_with_gradients(*case), _exact(*case), 1e-5)


@pytest.mark.usefixtures("_small_blocks")
def test_more_blocks_than_a_program_holds(device):
    case = _case(device, rows=3, seq_len=16 * 23, taps=16 * 3 + 5, channels=1)
    _assert_close(_with_gradients(*case), _exact(*case), 1e-5)


def test_blocks_of_full_size(device):
    case = _case(device, rows=1, seq_len=150, taps=130, channels=2, dtype=torch.bfloat16)
    _assert_close(_with_gradients(*case), _exact(*case), 2 * ROUNDING[torch.bfloat16])


@pytest.mark.usefixtures("way")
def test_the_skip_may_be_left_out(device):
    x, kernel, _, grad = _case(device)
    _assert_close(_with_gradients(x, kernel, None, grad), _exact(x, kernel, None, grad), 1e-5)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("rows", "seq_len", "taps"), [(0, 5, 5), (2, 0, 5), (2, 5, 0)])
def test_no_row_no_token_no_tap(device, rows, seq_len, taps):
    case = _case(device, rows=rows, seq_len=seq_len, taps=taps)
    _assert_close(_with_gradients(*case), _exact(*case), 1e-6)


@pytest.mark.usefixtures("way")
def test_slices_of_a_projection_need_no_copy_to_be_right(device):
    x, kernel, D, grad = _case(device, channels=6)
    wide = torch.cat([torch.full_like(x, float("nan")), x], dim=-1)
    turned = kernel.t().contiguous().t(), D, grad.transpose(0, 1).contiguous().transpose(0, 1)
    found = _with_gradients(wide[..., 6:], *turned)
    _assert_close(found, _exact(x, kernel, D, grad), 1e-5)


@pytest.mark.usefixtures("way")
def test_it_gives_the_same_bits_each_time(device):
    case = _case(device)
    first, second = _with_gradients(*case), _with_gradients(*case)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_both_ways_and_helix_cpu_agree(device, monkeypatch):
    case = _case(device, seq_len=33, taps=20)
    with BackendSelector({"cpu-simd": CPUBackend()}).using(["cpu-simd"]):
        expected = _with_gradients(*(each.cpu() for each in case))
    for most in WAYS.values():
        monkeypatch.setenv(module.VARIABLE, most)
        found = [each.cpu() for each in _with_gradients(*case)]
        _assert_close(found, [each.double() for each in expected], 1e-5)


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
def test_few_taps_are_products_and_many_transforms(device, dtype):
    most = module.MOST_TAPS[dtype]
    x = torch.empty(1, 2 * most, 1, dtype=dtype, device="meta")
    taps = torch.empty(1, most + 1, dtype=dtype, device="meta")
    assert module._way(x, taps[:, :-1]) is by_products
    assert module._way(x, taps) is by_transforms


def test_a_crossover_that_is_no_number_is_refused(device, monkeypatch):
    monkeypatch.setenv(module.VARIABLE, "many")
    with pytest.raises(ArgumentError, match=r"HELIX_CUDA_CONV_TAPS is 'many', allowed is a number of taps"):
        long_conv(*_case(device)[:3])


@pytest.mark.parametrize("backwards", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_what_is_turned_and_turned_back_is_the_same(device, dtype, backwards):
    x = torch.randn(2, 67, 65, device=device)
    turned = to_channels(x, 70, dtype, backwards=backwards)
    parts = torch.view_as_real(turned).transpose(2, 3).flatten(1, 2) if dtype.is_complex else turned
    ordered = x.flip(1) if backwards else x
    assert torch.equal(parts[:, :65, :67], ordered.transpose(1, 2))
    assert not parts[:, 65:].any()
    assert not parts[..., 67:].any()
    assert torch.equal(from_channels(turned, x, backwards=backwards), x)


@pytest.mark.parametrize("shortest", [1, 2, 3, 7, 17, 1000, 16383, 262143])
def test_a_transform_is_little_longer_than_needed_and_of_small_factors(shortest):
    found = by_transforms.transform_len(shortest)
    assert max(shortest, 2) <= found <= max(1.25 * shortest, 4)
    for prime in (2, 3, 5):
        while found % prime == 0:
            found //= prime
    assert found == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: too much to interpret")
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize(("seq_len", "taps"), [(2048, 2048), (4097, 100), (8192, 8192)])
def test_at_the_size_of_a_model_it_is_right_and_the_same_each_time(device, dtype, seq_len, taps):
    case = _case(device, rows=4, seq_len=seq_len, taps=taps, channels=64, dtype=dtype)
    found = _with_gradients(*case)
    expected = _transformed(*(each.double() for each in case))
    _assert_close(found, expected, 2 * ROUNDING[dtype] + 1e-5)
    for _ in range(20):
        assert all(torch.equal(a, b) for a, b in zip(found, _with_gradients(*case), strict=True))


def _transformed(x, kernel, D, grad):
    """Do what `_with_gradients` does by PyTorch's transforms: the reference takes a step a lag."""
    leaves = [leaf.requires_grad_() for leaf in (x, kernel, D)]
    n = 2 * x.shape[1]
    spectrum = torch.fft.rfft(x, n=n, dim=1) * torch.fft.rfft(kernel[:, : x.shape[1]], n=n).t()
    y = torch.fft.irfft(spectrum, n=n, dim=1)[:, : x.shape[1]] + D * x
    y.backward(grad)
    return [y.detach(), *(leaf.grad for leaf in leaves)]
