from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock, load_balancing_loss_func

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.layers import LayerSuite
from helix_ssm.config.composite import MoEConfig
from helix_ssm.layers import auxiliary
from helix_ssm.layers.language_model import LanguageModel
from helix_ssm.layers.mamba import Mamba
from helix_ssm.layers.moe import MoE


class TestMoE(LayerSuite):
    def make_layer(self):
        return MoE(self.d_model, n_experts=4)


class TestOneExpertForEachToken(LayerSuite):
    def make_layer(self):
        return MoE(self.d_model, n_experts=3, top_k=1, renormalise=False, activation="relu2", d_hidden=5)


@pytest.fixture(name="pair")
def fixture_pair():
    """Return Mixtral's block and ours with its weights."""
    torch.manual_seed(0)
    config = MixtralConfig(hidden_size=12, intermediate_size=20, num_local_experts=5, num_experts_per_tok=2)
    theirs = MixtralSparseMoeBlock(config).double()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.5)
    ours = MoE(12, n_experts=5, top_k=2, d_hidden=20).double()
    ours.router.weight = theirs.gate.weight
    ours.in_proj.weight = theirs.experts.gate_up_proj
    ours.out_proj.weight = theirs.experts.down_proj
    return theirs, ours


def test_agrees_with_mixtral(pair):
    theirs, ours = pair
    x = torch.randn(2, 31, 12).double()
    # Their router's softmax is in float32.
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-6)


def test_gradients_agree_with_mixtrals(pair):
    theirs, ours = pair
    x = torch.randn(2, 31, 12).double()
    weights = (theirs.gate.weight, theirs.experts.gate_up_proj, theirs.experts.down_proj)
    expected = torch.autograd.grad(theirs(x).square().sum(), weights)
    for ours_, theirs_ in zip(torch.autograd.grad(ours(x).square().sum(), weights), expected, strict=True):
        torch.testing.assert_close(ours_, theirs_, rtol=1e-4, atol=1e-4)


def test_balance_loss_is_that_of_transformers():
    torch.manual_seed(0)
    layer, x = MoE(12, n_experts=5, balance_weight=0.3, z_weight=0.0), torch.randn(2, 31, 12)
    layer(x)
    logits = F.linear(x.flatten(0, 1), layer.router.weight)
    expected = load_balancing_loss_func((logits,), num_experts=5, top_k=2)
    torch.testing.assert_close(layer.auxiliary_loss(), 0.3 * expected)


def test_z_loss_is_equation_5_of_st_moe():
    torch.manual_seed(0)
    layer, x = MoE(12, n_experts=5, balance_weight=0.0, z_weight=0.7), torch.randn(2, 31, 12)
    layer(x)
    logits = x.flatten(0, 1) @ layer.router.weight.T
    torch.testing.assert_close(layer.auxiliary_loss(), 0.7 * logits.exp().sum(-1).log().square().mean())


def test_descending_the_balance_loss_evens_out_the_experts():
    torch.manual_seed(0)
    layer, x = MoE(8, n_experts=4, top_k=1, renormalise=False, z_weight=0.0), torch.randn(1, 512, 8) + 1
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2)

    def largest_share():
        return layer.router(x).argmax(-1).flatten().bincount(minlength=4).max().item() / 512

    before = largest_share()
    for _ in range(60):
        optimizer.zero_grad()
        layer(x)
        layer.auxiliary_loss().backward()
        optimizer.step()
    assert before > 0.4
    assert largest_share() < 0.32


def test_no_token_is_dropped_though_all_choose_one_expert():
    layer, x = MoE(8, n_experts=4, top_k=1, renormalise=False).double(), torch.rand(1, 50, 8).double()
    with torch.no_grad():
        layer.router.weight.fill_(-1.0)[2] = 1.0
    gate, value = (x @ layer.in_proj.weight[2].T).chunk(2, dim=-1)
    expected = (F.silu(gate) * value) @ layer.out_proj.weight[2].T
    weight = (x @ layer.router.weight.T).softmax(-1)[..., 2:3]
    torch.testing.assert_close(layer(x), weight * expected)


def test_there_is_no_loss_before_training_nor_in_evaluation():
    layer = MoE(8)
    assert layer.auxiliary_loss() is None
    layer(torch.randn(1, 5, 8))
    assert layer.auxiliary_loss() is not None
    layer.eval()
    assert layer.auxiliary_loss() is None


def test_a_layer_can_be_copied_after_a_forward():
    layer = MoE(8)
    layer(torch.randn(1, 5, 8))
    assert copy.deepcopy(layer).auxiliary_loss() is None
    assert layer.auxiliary_loss() is not None


def test_no_tokens_give_no_loss():
    layer = MoE(8)
    assert layer(torch.zeros(2, 0, 8)).shape == (2, 0, 8)
    assert layer.auxiliary_loss() == 0


def test_the_losses_inside_a_model_add_up():
    model = LanguageModel(8, n_layers=2, mixer=Mamba, channel=MoE)
    assert auxiliary.collect(model) is None
    model(torch.randint(256, (2, 5)))
    expected = sum(block.channel.auxiliary_loss() for block in model.blocks)
    torch.testing.assert_close(auxiliary.collect(model), expected)
    assert auxiliary.collect(LanguageModel(8, n_layers=1, mixer=Mamba)) is None


def test_a_layer_speaks_for_those_inside_it():
    class Speaker(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = MoE(8)

        def auxiliary_loss(self):
            return torch.tensor(3.0)

    module = nn.Sequential(Speaker())
    module[0].inner(torch.randn(1, 5, 8))
    assert auxiliary.collect(module) == 3


def test_activation_checkpointing_keeps_the_losss_gradient():
    torch.manual_seed(0)
    model = LanguageModel(8, n_layers=2, mixer=Mamba, channel=MoE)
    ids, gradients = torch.randint(256, (2, 9)), []
    for enabled in (False, True):
        model.set_activation_checkpointing(enabled=enabled)
        model.zero_grad()
        loss = model(ids).square().mean()
        (loss + auxiliary.collect(model)).backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_training_compiles_with_its_losses():
    torch.manual_seed(0)
    layer, x = MoE(8), torch.randn(2, 9, 8)
    torch.compiler.reset()
    y = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    (y.sum() + layer.auxiliary_loss()).backward()
    compiled = [p.grad.clone() for p in layer.parameters()]
    layer.zero_grad()
    (layer(x).sum() + layer.auxiliary_loss()).backward()
    for one, other in zip(compiled, layer.parameters(), strict=True):
        torch.testing.assert_close(one, other.grad)


def test_autocast_multiplies_in_bfloat16_and_routes_in_float32():
    torch.manual_seed(0)
    layer, x = MoE(16), torch.randn(2, 40, 16)
    expected = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert layer.auxiliary_loss().dtype == layer.router.weight.grad.dtype == torch.float32
    torch.testing.assert_close(y.float(), expected, rtol=0.1, atol=0.02)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"d_model": 0}, "d_model is 0"),
        ({"n_experts": 0}, "n_experts is 0"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_k": 9}, "top_k is 9, allowed is <= n_experts=8"),
        ({"top_k": 1}, "renormalise is True with top_k=1"),
        ({"d_hidden": 0}, "d_hidden is 0"),
        ({"balance_weight": -1.0}, "balance_weight is -1.0"),
        ({"z_weight": -1.0}, "z_weight is -1.0"),
        ({"activation": "glu"}, "moe: activation is 'glu'"),
    ],
)
def test_a_wrong_argument_is_named(wrong, message):
    with pytest.raises(ArgumentError, match=message):
        MoE(**{"d_model": 8, **wrong})
    if "activation" not in wrong:
        with pytest.raises(ArgumentError, match=message.removeprefix("moe: ")):
            MoEConfig(**{"d_model": 8, **wrong})
