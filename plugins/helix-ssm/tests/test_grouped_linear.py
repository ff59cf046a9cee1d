from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from helix_kernel.errors import ArgumentError
from helix_ssm.ops import grouped_linear


@pytest.mark.skipif(not hasattr(F, "grouped_mm"), reason="this PyTorch has no grouped_mm")
def test_agrees_with_torchs_grouped_product():
    torch.manual_seed(0)
    x, weight, bounds = torch.randn(13, 8), torch.randn(4, 24, 8), torch.tensor([0, 3, 3, 9, 13])
    expected = F.grouped_mm(x, weight.mT, offs=bounds[1:].int())
    torch.testing.assert_close(grouped_linear(x, weight, bounds), expected)


def test_it_computes_in_the_dtype_of_the_rows():
    x, weight = torch.randn(5, 4), torch.randn(2, 3, 4, dtype=torch.float64)
    assert grouped_linear(x.bfloat16(), weight, torch.tensor([0, 2, 5])).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("x", "weight", "bounds", "message"),
    [
        (torch.zeros(5, 3), torch.zeros(2, 3, 4), torch.tensor([0, 2, 5]), "x has shape"),
        (torch.zeros(5, 4), torch.zeros(3, 4), torch.tensor([0, 2, 5]), "weight has shape"),
        (torch.zeros(5, 4), torch.zeros(2, 3, 4), torch.tensor([0, 5]), "bounds has shape"),
        (torch.zeros(5, 4), torch.zeros(2, 3, 4), torch.tensor([0.0, 2, 5]), "bounds has dtype"),
        (torch.zeros(5, 4), torch.zeros(2, 3, 4), torch.tensor([0, 2, 4]), "rise from 0 to"),
    ],
)
def test_a_wrong_argument_is_named(x, weight, bounds, message):
    with pytest.raises(ArgumentError, match=message):
        grouped_linear(x, weight, bounds)
