from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from helix_kernel.errors import ArgumentError, InputError
from helix_kernel.memory import Report, Retrieved, Stats
from helix_kernel.testing.memory_tiers import MemoryTierSuite
from helix_topo.cycles import Cycles
from helix_topo.motifs.tier import Motifs

D_KEY = 6


class Shelf:
    """A tier below as short as one can be: keys of symbols, likest is what shares the longest end."""

    d_key, d_value, key_dtype = D_KEY, 2, torch.uint8

    def __init__(self, capacity=None):
        self.capacity, self.rows, self.counts, self.time = capacity, {}, [0, 0, 0], -math.inf

    def write(self, keys, values, *, time):
        if keys.shape[1:] != (self.d_key,) or values.shape != (len(keys), self.d_value) or time < self.time:
            raise ArgumentError("keys, values or time do not fit")
        self.time = time
        ids = range(self.counts[0], self.counts[0] + len(keys))
        self.counts[0] += len(keys)
        for entry, key, value in zip(ids, keys.tolist(), values.clone(), strict=True):
            self.rows[entry] = (key, value)
        while self.capacity is not None and len(self.rows) > self.capacity:
            del self.rows[min(self.rows)]
            self.counts[2] += 1
        return torch.tensor(list(ids), dtype=torch.int64)

    def read(self, queries, k):
        if queries.shape[1:] != (self.d_key,) or k < 1:
            raise ArgumentError("queries or k do not fit")
        self.counts[1] += len(queries)
        rows = [
            sorted(((self.shared(q, key), entry) for entry, (key, _) in self.rows.items()), reverse=True)
            for q in queries.tolist()
        ]
        rows = [(row + [(-math.inf, -1)] * k)[:k] for row in rows]
        ids = torch.tensor([[entry for _, entry in row] for row in rows], dtype=torch.int64).reshape(-1, k)
        scores = torch.tensor([[score for score, _ in row] for row in rows]).reshape(-1, k)
        values = self.values_of(ids.flatten())[0].reshape(*ids.shape, -1)
        return Retrieved(ids=ids, scores=scores, values=values)

    def shared(self, one, other):
        different = [i for i in range(self.d_key) if one[-1 - i] != other[-1 - i]]
        return float(different[0] if different else self.d_key)

    def values_of(self, ids):
        empty = torch.zeros(self.d_value)
        values = [self.rows[i][1] if i in self.rows else empty for i in ids.tolist()]
        held = torch.tensor([i in self.rows for i in ids.tolist()], dtype=torch.bool)
        return torch.stack(values) if values else torch.zeros(0, self.d_value), held

    def consolidate(self):
        return Report()

    def state(self):
        rows = {
            str(entry): {"key": list(key), "value": value.clone()}
            for entry, (key, value) in self.rows.items()
        }
        return {"rows": rows, "counts": list(self.counts), "time": self.time}

    def load_state(self, state):
        self.rows = {
            int(entry): (list(row["key"]), row["value"].clone()) for entry, row in state["rows"].items()
        }
        self.counts, self.time = list(state["counts"]), state["time"]

    def stats(self):
        written, queries, evicted = self.counts
        return Stats(
            entries=len(self.rows),
            written=written,
            queries=queries,
            evicted=evicted,
            n_bytes=20 * len(self.rows),
        )


class TestCycles(MemoryTierSuite):
    def make_tier(self):
        return Cycles(Shelf(), least=1)


class TestCyclesOverABoundedTier(MemoryTierSuite):
    def make_tier(self):
        return Cycles(Shelf(capacity=5), least=1, gate_by_phase=True)


class TestCyclesOverMotifs(MemoryTierSuite):
    def make_tier(self):
        return Cycles(Motifs(budget=1 << 20, d_value=2, capacity=9), least=1)


def test_values_of_motifs_are_those_that_were_written_last_where_they_are_still_held():
    motifs = Motifs(budget=1 << 20, d_key=D_KEY, d_value=2, capacity=3)
    assert motifs.values_of(torch.tensor([0, -1]))[1].tolist() == [False, False]
    ids = motifs.write(keys("a", "b", "c", "d", "d"), values("a", "b", "c", "d", "dd"), time=0.0)
    found, held = motifs.values_of(torch.tensor([-1, *ids.tolist(), 99]))
    kept = {int(ids[row]): values(*words)[row] for words in [("a", "b", "c", "d", "dd")] for row in range(5)}
    assert held.sum() == 4, "three entries are held, and one was asked for twice"
    for entry, value, is_held in zip([-1, *ids.tolist(), 99], found, held.tolist(), strict=True):
        assert value.equal(kept[entry] if is_held else torch.zeros(2))


def keys(*words):
    return torch.tensor([list(word.rjust(D_KEY).encode()) for word in words], dtype=torch.uint8)


def values(*words):
    return torch.tensor([[float(len(word)), float(word.encode()[-1])] for word in words])


def filled(**options):
    """Entries 0 to 4: a, b, c and d, of which a, b and c were then followed around a cycle, and x."""
    tier = Cycles(Shelf(), **options)
    tier.write(keys("a", "b", "c", "d", "x"), values("a", "b", "c", "d", "x"), time=0.0)
    tier.follow(torch.tensor([-1, *[0, 1, 2] * 4, 3, -1]))
    return tier


def test_what_lies_on_a_cycle_comes_after_the_own_entry_and_before_the_rest():
    tier = filled()
    assert tier.read(keys("b"), 5).ids.tolist()[0] == [1, 4, 3, 2, 0], "what was not analysed is not found"
    tier.consolidate()
    found = tier.read(keys("b"), 5)
    assert found.ids.tolist() == [[1, 2, 0, 4, 3]]
    assert found.values[0].tolist() == values("b", "c", "a", "x", "d").tolist()
    assert found.scores[0].floor().tolist() == [2, 2, 2, 0, 0], "around the ring each is reached for sure"
    assert tier.read(keys("d"), 5).ids.tolist() == [[3, 4, 2, 1, 0]]


def test_mates_are_ranked_by_how_likely_they_are_reached():
    tier = Cycles(least=1)
    tier.follow(torch.tensor([0, 1, 0, 2, 0, 1, 0, 1, 0]))
    tier.consolidate()
    assert tier.mates(0, 9) == [(1, 0.75), (2, 0.25)]
    assert tier.mates(0, 1) == [(1, 0.75)]


def test_what_follows_goes_on_from_write_to_write_and_nothing_parts_it():
    apart, together = (Cycles(least=1) for _ in range(2))
    for part in ([5], [], [6, 7], [-1, 8]):
        apart.follow(torch.tensor(part, dtype=torch.int64))
    together.follow(torch.tensor([5, 6, 7, -1, 8]))
    for tier in (apart, together):
        arcs = tier.graph.arcs()
        assert list(zip(arcs.source.tolist(), arcs.target.tolist(), strict=True)) == [(5, 6), (6, 7)]
        assert int(tier.last) == 8


def test_what_the_tier_below_gave_up_is_not_found():
    tier = Cycles(Shelf(capacity=3), least=1)
    for word in "abcabcabc":
        tier.write(keys(word), values(word), time=0.0)
    tier.follow(torch.tensor([-1, 6, 7, 8, 0, 6]))
    tier.consolidate()
    assert {0, 1, 2, 3, 4, 5} <= {node for node, _ in tier.mates(6, 9)}
    for k in (2, 3, 9):
        assert tier.read(keys("a"), k).ids.tolist()[0] == [6, 7, 8, *[-1] * 6][:k]
    tier.follow(torch.tensor([-1, *[6, 0, 1, 2, 3, 4, 5, 8] * 9]))
    tier.consolidate()
    assert tier.read(keys("a"), 2).ids.tolist() == [[6, 8]], "behind six that are no more"


def test_the_gate_puts_back_what_is_out_of_step():
    """Around the ring all have one gap but 2, which was counted once more out of turn."""
    tiers = [Cycles(least=1, gate_by_phase=gated) for gated in (False, True)]
    for tier in tiers:
        tier.follow(torch.tensor([0, 1, 2, 3] * 4 + [0]))
        tier.follow(torch.tensor([-1, 0, 1, 0, -1, 1, 2, -1, 2, 3, 2, 3, -1, 3, 0]))
        tier.consolidate()
    plain, gated = (dict(tier.mates(0, 9)) for tier in tiers)
    graph = tiers[0].graph
    synchrony, component = graph.synchrony(), graph.component_of(0)
    assert 0.1 < synchrony.order[component] < 0.999
    for node, p in plain.items():
        difference = tiers[0]._phase(node) - synchrony.mean[component]
        gate = 1 - synchrony.order[component] * (1 - math.cos(difference)) / 2
        assert gated[node] == pytest.approx(p * gate)
    assert list(gated.values()) == sorted(gated.values(), reverse=True)
    assert list(plain) != list(gated)


def lm_windows(seed=0, shape=(3, 200), n=6):
    """Motifs of places, each of which the symbol before it, and the one before that, make; and symbols."""
    ids = torch.from_numpy(np.random.default_rng(seed).integers(0, n, (shape[0], shape[1] + 2)))
    return ids[:, :-2] * n + ids[:, 1:-1], ids[:, 2:]


def test_a_prediction_is_the_share_of_what_followed_on_cycles():
    tier, (motif, after) = Cycles(least=2), lm_windows()
    tier.advance(motif, after, n_symbols=6, write=True)
    assert not tier.advance(motif, None, n_symbols=6, write=False).bucket.any(), "nothing is analysed yet"
    tier.consolidate()
    counts = torch.zeros(36, 6)
    for row in range(len(motif)):
        for m, symbol in zip(motif[row, :-1].tolist(), after[row, :-1].tolist(), strict=True):
            counts[m, symbol] += 1
    counts[counts < 2] = 0  # with pairs for motifs the graph is strongly connected, or nearly so
    arcs = tier.graph.arcs(least=2)
    for source, symbol, component in zip(arcs.source, arcs.symbol, arcs.component, strict=True):
        counts[source, symbol] *= bool(component >= 0)
    expected = counts / counts.sum(1, keepdim=True).clamp(min=1)
    found = tier.advance(motif, None, n_symbols=6, write=False)
    torch.testing.assert_close(found.probabilities, expected[motif.flatten()])
    assert found.bucket.gt(0).equal(found.probabilities.sum(1) > 0)
    assert 0 < found.bucket.max() < Cycles.n_buckets


def test_the_memory_is_read_as_it_was_and_then_written():
    tier, (motif, after) = Cycles(least=1), lm_windows()
    tier.advance(motif, after, n_symbols=6, write=True)
    tier.consolidate()
    before = {name: buffer.clone() for name, buffer in tier.named_buffers()}
    other, after_other = lm_windows(seed=1)
    reading = tier.advance(other, None, n_symbols=6, write=False)
    assert all(buffer.equal(before[name]) for name, buffer in tier.named_buffers())
    writing = tier.advance(other, after_other, n_symbols=6, write=True)
    assert writing.probabilities.equal(reading.probabilities)
    assert tier.graph.counters[0] == before["graph.counters"][0] + 3 * 199


def test_rows_of_a_batch_are_independent():
    tier, (motif, after) = Cycles(least=1), lm_windows()
    tier.advance(motif, after, n_symbols=6, write=True)
    tier.consolidate()
    whole = tier.advance(motif, None, n_symbols=6, write=False).probabilities.reshape(3, 200, 6)
    for row in range(3):
        alone = tier.advance(motif[row : row + 1], None, n_symbols=6, write=False)
        assert alone.probabilities.equal(whole[row])


def test_the_graph_is_analysed_after_ever_longer_times():
    tier, analyses = Cycles(analyse_every=20_000), []
    motif, after = lm_windows(shape=(1, 1001))
    for _ in range(80):
        tier.advance(motif, after, n_symbols=6, write=True)
        if not analyses or analyses[-1] != int(tier.graph.counters[2]):
            analyses.append(int(tier.graph.counters[2]))
    assert analyses == [0, 5000, 10_000, 20_000, 40_000, 60_000, 80_000]


def test_a_module_and_one_with_its_state_dict_predict_the_same():
    tier, (motif, after) = Cycles(least=1), lm_windows()
    tier.advance(motif, after, n_symbols=6, write=True)
    tier.consolidate()
    other = Cycles(least=1)
    other.load_state_dict(tier.state_dict())
    first, second = (each.advance(motif, None, n_symbols=6, write=False) for each in (tier, other))
    assert first.probabilities.equal(second.probabilities)
    assert first.bucket.equal(second.bucket)


def test_a_state_of_a_graph_of_another_size_is_refused():
    with pytest.raises(InputError, match="same budget and ways"):
        Cycles(budget=1 << 20).load_state(Cycles(budget=1 << 19).state())


def test_what_cannot_be_done_without_a_tier_below_or_without_symbols_says_so():
    tier = Cycles()
    with pytest.raises(ArgumentError, match="below"):
        tier.write(keys("a"), values("a"), time=0.0)
    motif, after = lm_windows()
    with pytest.raises(ArgumentError, match=r"next_ids are None.*\(3, 200\)"):
        tier.advance(motif, None, n_symbols=6, write=True)
    with pytest.raises(ArgumentError, match="next_ids"):
        tier.advance(motif, after[:, 1:], n_symbols=6, write=True)
    with pytest.raises(ArgumentError, match="analyse_every"):
        Cycles(analyse_every=0)
