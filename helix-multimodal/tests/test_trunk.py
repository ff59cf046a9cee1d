"""Layers over tokens of many lengths."""

import pytest
import torch
from torch import nn

from helix_kernel import default_kernel
from helix_kernel.errors import ArgumentError
from helix_multimodal.inputs import Tokens
from helix_multimodal.trunk import Trunk

WIDTH = 8


class Sum(nn.Module):
    """A causal layer that knows nothing of packing."""

    def __init__(self, d_model):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(d_model))

    def forward(self, x):
        return x.cumsum(1) * self.weight


class Mean(nn.Module):
    """A layer that looks ahead, and is told what is visible."""

    causal = False

    def __init__(self, d_model):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(d_model))

    def forward(self, x, *, mask):
        kept = mask.unsqueeze(-1)
        return (x * kept).sum(1, keepdim=True) / kept.sum(1, keepdim=True).clamp(min=1) * self.weight + 0 * x


class Blind(nn.Module):
    causal = False

    def __init__(self, d_model):
        super().__init__()

    def forward(self, x):
        return x.flip(1)


def mamba(d_model):
    return default_kernel().build("layer", {"use": "mamba"}, d_model=d_model)


def tokens(seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(4, 9, WIDTH, generator=generator, dtype=torch.float64)
    mask = torch.rand(4, 9, generator=generator) < 0.6
    mask[2] = False
    return Tokens(values, mask)


@pytest.mark.parametrize("layers", [[mamba], [Sum], [Mean], [Mean, Sum], [mamba, mamba]])
def test_each_row_is_run_as_its_visible_tokens_alone(layers):
    torch.manual_seed(0)
    trunk, given = Trunk(WIDTH, layers).double().eval(), tokens()
    whole = trunk(given)
    for row in range(4):
        alone = given.values[row : row + 1, given.mask[row]]
        if not alone.shape[1]:
            assert not whole.values[row].any()
            continue
        expected = trunk(Tokens(alone, torch.ones(alone.shape[:2], dtype=torch.bool))).values[0]
        torch.testing.assert_close(whole.values[row, given.mask[row]], expected)


@pytest.mark.parametrize("layers", [[mamba], [Sum], [Mean]])
def test_what_the_mask_hides_changes_nothing(layers):
    torch.manual_seed(0)
    trunk, given = Trunk(WIDTH, layers).double().eval(), tokens()
    other = given.values.masked_fill(~given.mask.unsqueeze(-1), 1e3)
    assert trunk(given).values.equal(trunk(Tokens(other, given.mask)).values)


def test_packing_and_sorting_agree():
    torch.manual_seed(0)
    trunk, given = Trunk(WIDTH, [mamba]).double().eval(), tokens()
    torch.testing.assert_close(trunk._packed(given).values, trunk._sorted(given).values)


def test_gradients_go_through_packing():
    torch.manual_seed(0)
    trunk, given = Trunk(4, [Sum]).double(), tokens()
    values = given.values[:2, :3, :4].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: trunk(Tokens(x, given.mask[:2, :3])).values, (values,))


def test_a_layer_that_would_see_what_is_not_there_is_refused():
    with pytest.raises(ArgumentError, match="Blind looks ahead and takes neither cu_seqlens nor mask"):
        Trunk(WIDTH, [Blind])


def test_without_layers_tokens_stay():
    given = tokens()
    assert Trunk(WIDTH, [])(given) is given
