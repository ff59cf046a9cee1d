"""Fusions by hand, and each by its suite."""

import pytest
import torch

from helix_kernel import default_kernel
from helix_kernel.errors import ArgumentError
from helix_multimodal.fusion.cross_attention import CrossAttention
from helix_multimodal.fusion.early_concat import EarlyConcat
from helix_multimodal.fusion.gated import Gated
from helix_multimodal.fusion.interleaved_scan import InterleavedScan, _ordered, _places
from helix_multimodal.fusion.late_logits import LateLogits
from helix_multimodal.fusion.low_rank_bilinear import LowRankBilinear
from helix_multimodal.inputs import Tokens
from helix_multimodal.testing.fusions import FusionSuite


def mamba(d_model):
    return default_kernel().build("layer", {"use": "mamba"}, d_model=d_model)


class TestEarlyConcat(FusionSuite):
    def make_fusion(self, parts):
        return EarlyConcat(8, 6, parts, layers=[mamba])


class TestEarlyConcatWithoutLayers(FusionSuite):
    def make_fusion(self, parts):
        return EarlyConcat(8, 6, parts)


class TestLateLogits(FusionSuite):
    def make_fusion(self, parts):
        return LateLogits(8, 6, parts)


class TestWeightedLogits(FusionSuite):
    def make_fusion(self, parts):
        return LateLogits(8, 6, parts, weighted=True)


class TestGated(FusionSuite):
    def make_fusion(self, parts):
        return Gated(8, 6, parts)


class TestCrossAttention(FusionSuite):
    def make_fusion(self, parts):
        return CrossAttention(8, 6, parts, n_heads=2, n_layers=2)


class TestInterleavedScan(FusionSuite):
    def make_fusion(self, parts):
        return InterleavedScan(8, 6, parts, layer=mamba)


class TestLowRankBilinear(FusionSuite):
    def make_fusion(self, parts):
        return LowRankBilinear(8, 6, parts, rank=3)


def one(*vectors, shown=True):
    values = torch.tensor(vectors, dtype=torch.float64)[None]
    return Tokens(values, torch.full(values.shape[:2], shown))


def test_late_logits_are_the_mean_of_what_each_part_says():
    fusion = LateLogits(2, 3, ["a", "b"]).double()
    said = [head(torch.tensor([[1.0, 2.0]], dtype=torch.float64)) for head in fusion.heads]
    both = {"a": one([1.0, 2.0]), "b": one([0.0, 4.0], [2.0, 0.0])}
    torch.testing.assert_close(fusion(both), (said[0] + said[1]) / 2)
    torch.testing.assert_close(fusion({**both, "b": one([0.0, 4.0], shown=False)}), said[0])


def test_weights_of_logits_are_shared_among_those_that_are_there():
    fusion = LateLogits(2, 3, ["a", "b"], weighted=True).double()
    plain = LateLogits(2, 3, ["a", "b"]).double()
    plain.load_state_dict(fusion.state_dict(), strict=False)
    both = {"a": one([1.0, 2.0]), "b": one([0.0, 4.0])}
    torch.testing.assert_close(fusion(both), plain(both))
    fusion.weights.data = torch.tensor([3.0, 1.0], dtype=torch.float64).log()
    a, b = fusion.heads[0](both["a"].values[:, 0]), fusion.heads[1](both["b"].values[:, 0])
    torch.testing.assert_close(fusion(both), 0.75 * a + 0.25 * b)
    torch.testing.assert_close(fusion({**both, "b": one([0.0, 4.0], shown=False)}), a)


def test_a_part_of_another_name_is_told_from_the_nearest():
    fusion = Gated(2, 3, ["picture", "sound"])
    given = {"picture": one([1.0, 2.0]), "sond": one([1.0, 2.0])}
    with pytest.raises(ArgumentError, match=r"'sound' is missing.* Did you mean 'sond'\?"):
        fusion(given)


def test_the_gate_of_two_parts_is_a_sigmoid():
    fusion = Gated(2, 3, ["a", "b"]).double()
    x, y = torch.randn(2, 1, 2, dtype=torch.float64)
    z = fusion.gates(torch.cat([x, y], 1))
    gate = torch.sigmoid(z[:, :3] - z[:, 3:])
    expected = gate * torch.tanh(fusion.maps[0](x)) + (1 - gate) * torch.tanh(fusion.maps[1](y))
    torch.testing.assert_close(fusion({"a": one(*x.tolist()), "b": one(*y.tolist())}), expected)


def test_low_rank_is_a_tensor_product():
    """Against the outer product of [m; 1] of each part with the whole tensor (Liu et al. 2018)."""
    fusion = LowRankBilinear(2, 3, ["a", "b"], rank=4).double()
    x, y = torch.randn(2, 2, dtype=torch.float64)
    ends = [torch.cat([v, torch.ones(1, dtype=torch.float64)]) for v in (x, y)]
    maps = [torch.cat([f.weight, f.bias[:, None]], 1).view(4, 3, 3) for f in fusion.factors]
    tensor = torch.einsum("r,roi,roj->oij", fusion.weight[:, 0], *maps)
    expected = torch.einsum("oij,i,j->o", tensor, *ends) + fusion.bias
    torch.testing.assert_close(fusion({"a": one(x.tolist()), "b": one(y.tolist())})[0], expected)


def test_a_part_without_others_to_look_at_stays_as_it_is():
    torch.manual_seed(0)
    fusion = CrossAttention(4, 3, ["a", "b"]).double()
    a, b = one([1.0, 2.0, 3.0, 4.0]), one([4.0, 3.0, 2.0, 1.0])
    alone = fusion({"a": a, "b": Tokens(b.values, ~b.mask)})
    torch.testing.assert_close(alone, fusion.out_proj(a.values[:, 0]))
    assert not torch.allclose(alone, fusion({"a": a, "b": b}))


def test_tokens_take_turns_by_their_relative_places():
    mask = torch.tensor([[True] * 4])
    pair = torch.tensor([[True, True, False]])
    places = torch.cat([_places(mask), _places(pair)], 1)
    assert places.tolist() == [[0.125, 0.375, 0.625, 0.875, 0.25, 0.75, 2.0]]
    values = torch.arange(7.0)[None, :, None]
    ordered = _ordered(Tokens(values, torch.cat([mask, pair], 1)), places)
    assert ordered.values.flatten().tolist() == [0, 4, 1, 2, 5, 3, 6]
    assert ordered.mask.tolist() == [[True] * 6 + [False]]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Gated(2, 3, []), "parts is empty"),
        (lambda: Gated(2, 3, ["a", "a"]), "'a' twice"),
        (lambda: CrossAttention(6, 3, ["a"], n_heads=4), "n_heads is 4, allowed is a divisor of 6"),
        (lambda: LowRankBilinear(6, 3, ["a"], rank=0), "rank is 0"),
    ],
)
def test_what_does_not_fit_is_refused(make, match):
    with pytest.raises(ArgumentError, match=match):
        make()
