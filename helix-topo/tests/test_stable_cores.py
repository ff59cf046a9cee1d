from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from helix_kernel.errors import ArgumentError, InputError
from helix_kernel.testing.memory_tiers import MemoryTierSuite
from helix_topo.dense_rows import DenseRows
from helix_topo.graph import TransitionGraph
from helix_topo.prototypes import N_BUCKETS
from helix_topo.stable_cores import StableCores


class TestStableCores(MemoryTierSuite):
    def make_tier(self):
        return StableCores(8, 5, capacity=2000)


class TestFewStableCores(MemoryTierSuite):
    def make_tier(self):
        return StableCores(8, 5, capacity=5, core=1, least=1, stable_from=0.5, merge_above=0.1, budget=1000)


def directions(n, *, spread, seed):
    """Vectors around one direction, that are like it but not alike."""
    generator = torch.Generator().manual_seed(seed)
    center = normalize(torch.randn(16, generator=generator), dim=0)
    return normalize(center + spread * normalize(torch.randn(n, 16, generator=generator), dim=1), dim=1)


def around(tier, keys, values, times):
    """Write keys one after another around a ring, several times; returns their ids."""
    start = max(float(tier.clock), 0.0)
    for turn in range(times):
        ids = tier.write(keys, values, time=start + 30.0 * turn)
    return ids.tolist()


@pytest.fixture
def tier():
    return StableCores(16, 3)


def test_a_key_that_is_alike_recalls_its_entry_and_becomes_part_of_it(tier):
    key = directions(1, spread=0.0, seed=0)
    first = tier.write(key, torch.tensor([[1.0, 0.0, 0.0]]), time=0.0)
    again = tier.write(normalize(key + 0.01), torch.tensor([[0.0, 1.0, 0.0]]), time=10.0)
    assert first.tolist() == again.tolist() == [0]
    assert tier.read(key, 1).values.tolist() == [[[0.5, 0.5, 0.0]]]
    assert (tier.stats().entries, tier.stats().merged, tier.stats().written) == (1, 1, 2)


def test_a_recall_makes_the_half_life_longer_by_the_formula(tier):
    key, value = directions(1, spread=0.0, seed=0), torch.zeros(1, 3)
    for time in (0.0, 4.0, 4.0, 20.0):
        tier.write(key, value, time=time)
    s = 1.0
    for gap in (4, 0, 16):
        s *= 1 + 8 * (math.exp(1 - (1 + 19 / 81 * gap / s) ** -0.5) - 1)
    assert tier.rows.half_life[0].item() == pytest.approx(s)
    assert tier.rows.retrievability(20.0 + s)[0].item() == pytest.approx(0.9)


def test_what_lasts_belongs_to_a_core_and_is_alike_becomes_one(tier):
    keys, values = directions(4, spread=0.6, seed=1), torch.eye(3)[[0, 0, 1, 2]]
    ids = around(tier, keys, values, times=5)
    others = around(tier, directions(2, spread=0.6, seed=2), torch.zeros(2, 3), times=5)
    assert len({*ids, *others}) == 6
    report = tier.consolidate()
    assert report.removed == ()
    assert set(report.merged) | set(report.merged.values()) == set(ids), "two are no cycle of a 2-core"
    found = tier.read(keys, 1)
    assert len(set(found.ids.flatten().tolist())) == 1
    torch.testing.assert_close(found.values[0, 0], torch.tensor([0.5, 0.25, 0.25]))
    core_keys, core_values, weights = tier.cores()
    mean = normalize(keys.mean(0), dim=0)
    torch.testing.assert_close(core_keys[weights == 20], mean[None])
    assert core_values[weights == 20].shape == (1, 3)
    assert tier.stats().entries == 3


@pytest.mark.parametrize(
    ("options", "times", "spread"),
    [
        pytest.param({"stable_from": 1e6}, 5, 0.6, id="unstable"),
        pytest.param({"core": 3}, 5, 0.6, id="in no such core"),
        pytest.param({"least": 9}, 5, 0.6, id="seldom"),
        pytest.param({}, 1, 0.6, id="once"),
        pytest.param({"merge_above": 0.95}, 5, 1.2, id="unlike"),
    ],
)
def test_nothing_else_is_merged(options, times, spread):
    tier = StableCores(16, 3, **options)
    around(tier, directions(4, spread=spread, seed=1), torch.zeros(4, 3), times=times)
    assert tier.consolidate().merged == {}
    assert tier.stats().entries == 4


def test_a_key_that_another_entry_would_be_found_by_is_not_merged(tier):
    keys = directions(4, spread=0.7, seed=1)
    around(tier, keys, torch.zeros(4, 3), times=5)
    drawn = torch.randn(1, 16, generator=torch.Generator().manual_seed(0))
    across = normalize(drawn - (drawn @ keys[0]) * keys[:1])
    near_the_first = normalize(keys[:1] + 0.4 * across)
    assert keys[:1] @ near_the_first.T < 0.95
    other = tier.write(near_the_first, torch.ones(1, 3), time=500.0)
    first = int(tier.read(keys[:1], 1).ids)
    report = tier.consolidate()
    assert first not in {*report.merged, *report.merged.values()}
    assert len(report.merged) >= 1
    assert tier.read(near_the_first, 1).ids.tolist() == [other.tolist()]


def test_a_full_table_gives_up_what_is_least_likely_to_be_recalled():
    tier = StableCores(16, 3, capacity=3)
    keys, values = directions(5, spread=9.0, seed=3), torch.zeros(5, 3)
    tier.write(keys[:3], values[:3], time=0.0)
    tier.write(keys[:1], values[:1], time=5.0)
    tier.write(keys[3:4], values[3:4], time=6.0)
    assert set(tier.read(keys, 3).ids.flatten().tolist()) == {0, 2, 3}
    tier.write(keys[4:], values[4:], time=7.0)
    assert set(tier.read(keys, 3).ids.flatten().tolist()) == {0, 3, 4}
    assert tier.stats().evicted == 2


@pytest.mark.parametrize("where", ["helix_topo.analysis._core_numbers", "helix_topo.stable_cores._merged"])
def test_a_consolidation_that_fails_changes_nothing(tier, monkeypatch, where):
    around(tier, directions(4, spread=0.6, seed=1), torch.zeros(4, 3), times=5)
    before = tier.state()
    monkeypatch.setattr(where, lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tier.consolidate()
    assert all(value.equal(before[name]) for name, value in tier.state().items())


def places(seed=0, shape=(2, 300), n_motifs=5, n_symbols=3):
    """Features around a direction for each motif, and symbols that the motif makes likely."""
    rng = np.random.default_rng(seed)
    motif = torch.from_numpy(rng.integers(-1, n_motifs, shape))
    centers = directions(n_motifs + 1, spread=9.0, seed=7)
    noise = torch.from_numpy(rng.normal(0, 0.05, (*shape, 16))).float()
    after = torch.where(torch.from_numpy(rng.random(shape)) < 0.8, motif % n_symbols, 0)
    return 3 * (centers[motif] + noise), motif, after


def test_rows_learn_the_means_of_their_motifs_places(tier):
    features, motif, after = places()
    tier.select(torch.tensor([3, 1]))
    for part in zip(features, motif, after, strict=True):
        tier.advance(*(x[None] for x in part), write=True)
    for row, label in enumerate((3, 1)):
        here = motif == label
        assert tier.rows.labels[row] == label
        assert tier.rows.weights[row] == here.sum()
        torch.testing.assert_close(tier.rows.keys[row], normalize(features[here], dim=-1).mean(0))
        counts = torch.bincount(after[here], minlength=3)
        torch.testing.assert_close(tier.rows.values[row], counts / counts.sum())


def test_predictions_are_the_rows_weighed_by_a_softmax_of_cosines():
    tier = StableCores(16, 3, n_read=2, sharpness=7.0)
    features, motif, after = places()
    tier.select(torch.arange(5))
    tier.advance(features, motif, after, write=True)
    found = tier.advance(features, motif, None, write=False)
    for place in range(0, 600, 41):
        cosines = torch.nn.functional.cosine_similarity(
            features.flatten(0, 1)[place], tier.rows.keys[:5], dim=-1
        )
        best = cosines.argsort(descending=True)[:2]
        weights = (7.0 * cosines[best]).exp()
        expected = (weights[:, None] * tier.rows.values[best]).sum(0) / weights.sum()
        torch.testing.assert_close(found.probabilities[place], expected)
    assert (found.bucket > 0).all()
    assert found.bucket.max() < N_BUCKETS
    likely = found.probabilities.argmax(-1).reshape(motif.shape)
    assert (likely == motif % 3)[motif >= 0].float().mean() > 0.95


def test_what_has_learned_nothing_predicts_nothing(tier):
    features, motif, after = places()
    assert not tier.advance(features, motif, after, write=True).bucket.any(), "no motif is selected"
    tier.select(torch.arange(5))
    found = tier.advance(features, motif, after, write=True)
    assert not found.bucket.any(), "read before it is written"
    assert not found.probabilities.any()
    assert tier.advance(features, motif, None, write=False).bucket.all()


def test_rows_follow_features_that_drift(tier):
    features, motif, after = places(n_motifs=1)
    tier.select(torch.tensor([0]))
    for drift in (1, -1):
        for _ in range(30):
            tier.advance(drift * features, motif, after, write=True)
    mean = normalize(-features[motif == 0], dim=-1).mean(0)
    assert torch.nn.functional.cosine_similarity(tier.rows.keys[0], mean, dim=0) > 0.99


def test_selecting_anew_keeps_what_was_learned_and_frees_the_rest():
    tier = StableCores(16, 3, capacity=3)
    tier.select(torch.tensor([0, 1, 2, 3]))
    assert tier.rows.labels.tolist() == [0, 1, 2]
    tier.advance(*places(), write=True)
    learned = tier.rows.values[1].clone()
    tier.select(torch.tensor([4, 1]))
    assert tier.rows.labels.tolist() == [4, 1, -1]
    assert tier.rows.values[1].equal(learned)
    assert tier.rows.weights[[0, 2]].tolist() == [0, 0]
    stats = tier.stats()
    assert (stats.entries, stats.written, stats.evicted) == (2, 4, 2)


def test_the_motifs_of_the_densest_cores_are_selected_first():
    graph = TransitionGraph(least=1)
    for pair in [(a, b) for a in range(5) for b in range(5) if a != b] + [(10, 11), (11, 12), (12, 10)]:
        graph.add(*(torch.tensor([node]) for node in pair))
    graph.add(torch.tensor([0, 20]), torch.tensor([20, 21]))
    graph.analyse()
    tier = StableCores(16, 3, capacity=6, core=2)
    tier.select_from(graph)
    assert tier.rows.labels.tolist() == [0, 1, 2, 3, 4, 10]
    graph.add(torch.tensor([20]), torch.tensor([21]))
    graph.analyse()
    tier.select_from(graph, stable=lambda motifs: motifs % 2 == 0)
    assert sorted(tier.rows.labels.tolist()) == [-1, 0, 2, 4, 10, 12]


def test_motifs_are_selected_once_for_each_analysis(tier):
    graph = TransitionGraph(least=1)
    graph.add(torch.tensor([1, 2, 3]), torch.tensor([2, 3, 1]))
    graph.analyse()
    tier.select_from(graph)
    tier.select(torch.tensor([9]))
    tier.select_from(graph)
    assert tier.rows.labels.tolist()[:4] == [9, -1, -1, -1]
    graph.add(torch.tensor([4]), torch.tensor([5]))
    graph.analyse()
    tier.select_from(graph)
    assert sorted(tier.rows.labels.tolist())[-3:] == [1, 2, 3]


def test_a_model_that_is_cast_and_copied_keeps_the_memory(tier):
    tier.select(torch.arange(5))
    tier.advance(*places(), write=True)
    features, motif, _ = places(seed=1)
    before = tier.advance(features, motif, None, write=False).probabilities
    other = copy.deepcopy(torch.nn.Sequential(tier).half())[0]
    assert other.advance(features, motif, None, write=False).probabilities.equal(before)


def test_rows_of_equal_retrievability_give_way_by_age():
    rows = DenseRows(2, 1, 1)
    for row, entry in ((0, 7), (1, 4)):
        rows.put(row, torch.ones(1), torch.ones(1), entry=entry, time=0.0)
    assert rows.free_row(3.0) == (1, True)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda tier: StableCores(0, 3), "d_key is 0"),
        (lambda tier: StableCores(2, 3, alike=1.5), "alike is 1.5"),
        (lambda tier: tier.advance(torch.zeros(1, 2, 16), torch.zeros(1, 2), None, write=True), "next_ids"),
        (lambda tier: tier.advance(torch.zeros(1, 2, 5), torch.zeros(1, 2), None, write=False), "features"),
    ],
)
def test_wrong_arguments_are_refused(tier, call, message):
    with pytest.raises(ArgumentError, match=message):
        call(tier)


def test_a_state_of_another_size_is_refused(tier):
    with pytest.raises(InputError, match="same d_key"):
        tier.load_state(StableCores(16, 3, capacity=7).state())
