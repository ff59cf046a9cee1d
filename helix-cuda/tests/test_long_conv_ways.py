"""Which of its two ways a long convolution goes, and what the one by transforms is made of."""

from __future__ import annotations

import pytest
import torch
from against_float64 import DTYPES

from helix_cuda.ops import _conv_by_products as by_products
from helix_cuda.ops import _conv_by_transforms as by_transforms
from helix_cuda.ops import long_conv as module
from helix_cuda.ops._turning import from_channels, to_channels
from helix_kernel.errors import ArgumentError


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_few_taps_are_products_and_many_transforms(device, dtype):
    most = module.MOST_TAPS[dtype]
    x = torch.empty(1, 2 * most, 1, dtype=dtype, device="meta")
    taps = torch.empty(1, most + 1, dtype=dtype, device="meta")
    assert module._way(x, taps[:, :-1]) is by_products
    assert module._way(x, taps) is by_transforms


def test_a_crossover_that_is_no_number_is_refused(device, monkeypatch):
    monkeypatch.setenv(module.VARIABLE, "many")
    with pytest.raises(ArgumentError, match=r"HELIX_CUDA_CONV_TAPS is 'many', allowed is a number of taps"):
        module.long_conv(torch.zeros(1, 2, 1, device=device), torch.zeros(1, 2, device=device), None)


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
