from __future__ import annotations

import copy
from functools import partial

import pytest
import torch

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.layers import LayerSuite
from helix_ssm.layers.attention import Attention
from helix_ssm.layers.bidirectional import Bidirectional
from helix_ssm.layers.layer_norm import LayerNorm
from helix_ssm.layers.mamba import Mamba
from helix_ssm.layers.moe import MoE
from helix_ssm.layers.reversible import Reversible


class TestReversible(LayerSuite):
    def make_layer(self):
        return Reversible(self.d_model)


class TestWithAttentionAndStatefulChannelLayer(LayerSuite):
    def make_layer(self):
        return Reversible(self.d_model, n_layers=1, mixer=Attention, channel=Mamba, recompute=False)


class TestLookingAhead(LayerSuite):
    def make_layer(self):
        return Reversible(self.d_model, n_layers=1, mixer=Bidirectional)


def gradients(layer, x, *, recompute, cu_seqlens=None):
    """Return the output and the gradients of x and all parameters, with the same random numbers each time."""
    layer.recompute = recompute
    layer.zero_grad()
    x = x.clone().requires_grad_()
    torch.manual_seed(1)
    y = layer(x, cu_seqlens=cu_seqlens)
    loss = (y * torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y)).sum() + y.square().sum()
    if layer.auxiliary_loss() is not None:
        loss = loss + layer.auxiliary_loss()
    loss.backward()
    return [y.detach(), x.grad, *(p.grad.clone() for p in layer.parameters())]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dropout": 0.4},
        {"channel": partial(MoE, n_experts=3)},
        {"mixer": partial(Bidirectional, mixer=Attention)},
    ],
    ids=["plain", "dropout", "auxiliary-losses", "looking-ahead"],
)
@pytest.mark.parametrize("bounds", [None, [0, 4, 4, 11]], ids=["whole", "packed"])
def test_recomputed_gradients_are_those_of_kept_activations(options, bounds):
    torch.manual_seed(0)
    layer, x = Reversible(8, n_layers=3, **options).double(), torch.randn(1, 11, 8).double()
    cu_seqlens = None if bounds is None else torch.tensor(bounds)
    runs = [gradients(layer, x, recompute=recompute, cu_seqlens=cu_seqlens) for recompute in (True, False)]
    for recomputed, kept in zip(*runs, strict=True):
        torch.testing.assert_close(recomputed, kept, rtol=1e-10, atol=1e-10)


def test_float32_gradients_are_close_through_many_layers():
    torch.manual_seed(0)
    layer, x = Reversible(8, n_layers=24), torch.randn(1, 11, 8)
    runs = [gradients(layer, x, recompute=recompute) for recompute in (True, False)]
    for recomputed, kept in zip(*runs, strict=True):
        assert (recomputed - kept).abs().max() <= 1e-4 * kept.abs().max()


def kept_elements(n_layers, *, recompute):
    """Return how many elements that are no parameters one forward keeps for the backward pass."""
    torch.manual_seed(0)
    layer = Reversible(8, n_layers=n_layers, recompute=recompute)
    parameters = {p.data_ptr() for p in layer.parameters()}
    kept = []

    def keep(tensor):
        if tensor.data_ptr() not in parameters:
            kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(torch.randn(2, 32, 8, requires_grad=True))
    return sum(kept)


def test_what_is_kept_does_not_grow_with_depth():
    assert kept_elements(2, recompute=True) == kept_elements(12, recompute=True) == 2 * 2 * 32 * 8
    assert kept_elements(12, recompute=False) > 5 * kept_elements(2, recompute=False)


def test_the_streams_are_revnets():
    layer, x = Reversible(8, n_layers=2), torch.randn(1, 5, 8)
    x1 = x2 = x
    for f, g in ((layer.halves[0], layer.halves[1]), (layer.halves[2], layer.halves[3])):
        x1 = x1 + f.layer(f.norm(x2))
        x2 = x2 + g.layer(g.norm(x1))
    torch.testing.assert_close(layer(x), (x1 + x2) / 2)


def test_the_backward_pass_autocasts_as_the_forward_pass_did():
    layer, seen = Reversible(8, n_layers=1), []
    layer.halves[1].layer.in_proj.register_forward_hook(lambda _m, _x, y: seen.append(y.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(torch.randn(1, 5, 8))
    y.sum().backward()
    assert seen == [torch.bfloat16, torch.bfloat16]
    assert all(p.grad.isfinite().all() and p.grad.dtype == torch.float32 for p in layer.parameters())


def test_random_numbers_go_on_after_the_backward_pass():
    layer, x = Reversible(8, n_layers=1, dropout=0.5), torch.randn(1, 5, 8)
    torch.manual_seed(0)
    y = layer(x)
    expected = torch.rand(3)
    torch.manual_seed(0)
    layer(x).sum().backward()
    assert torch.rand(3).equal(expected)
    assert not layer(x).equal(y)


def test_half_precision_streams_are_float32():
    """Sums of many small steps would be lost in bfloat16, and with them the way back."""
    layer, x = Reversible(8, n_layers=2).bfloat16(), torch.randn(1, 5, 8).bfloat16().requires_grad_()
    a = b = x.detach().float()
    for half in layer.halves:
        a, b = b, a + half(b.bfloat16(), None).float()
    y = layer(x)
    y.sum().backward()
    assert y.equal(((a + b) / 2).bfloat16())
    assert x.grad.dtype == torch.bfloat16


def test_a_frozen_layer_gets_no_gradient():
    layer, x = Reversible(8, n_layers=2), torch.randn(1, 5, 8)
    layer.halves[0].requires_grad_(requires_grad=False)
    layer(x).sum().backward()
    assert all((p.grad is None) == (not p.requires_grad) for p in layer.parameters())
    layer.requires_grad_(requires_grad=False)
    assert not layer(x).requires_grad


def test_training_compiles():
    torch.manual_seed(0)
    layer, x = Reversible(8, n_layers=1), torch.randn(1, 5, 8)
    torch.compiler.reset()
    torch.compile(layer, fullgraph=True, backend="aot_eager")(x).sum().backward()
    compiled = [p.grad.clone() for p in layer.parameters()]
    layer.zero_grad()
    layer(x).sum().backward()
    for one, other in zip(compiled, layer.parameters(), strict=True):
        torch.testing.assert_close(one, other.grad, rtol=1e-4, atol=1e-5)


def test_a_layer_can_be_copied_after_a_forward():
    layer = Reversible(8, channel=MoE)
    layer(torch.randn(1, 5, 8))
    assert layer.auxiliary_loss().requires_grad
    assert copy.deepcopy(layer).auxiliary_loss() is None
    assert layer.eval().auxiliary_loss() is None


def test_a_layer_that_looks_ahead_keeps_no_state():
    layer = Reversible(8, mixer=Bidirectional)
    with pytest.raises(ArgumentError, match="looks ahead"):
        layer.init_state(1)


def test_output_maps_begin_smaller_in_deeper_stacks():
    torch.manual_seed(0)
    layer = Reversible(64, n_layers=4)
    uniform = (1 / 128) ** 0.5 / 3**0.5
    assert layer.halves[0].layer.out_proj.weight.std().item() == pytest.approx(uniform / 2, rel=0.03)


def test_another_norm_can_take_its_place():
    layer = Reversible(8, norm=LayerNorm)
    assert isinstance(layer.halves[0].norm, LayerNorm)


@pytest.mark.parametrize("wrong", [{"d_model": 0}, {"n_layers": 0}, {"dropout": 1.0}])
def test_a_wrong_argument_is_named(wrong):
    with pytest.raises(ArgumentError, match=f"reversible: {next(iter(wrong))} is"):
        Reversible(**{"d_model": 8, **wrong})
