"""The dataset `mixture`: exact shares, each part's own order, the same at any world size."""

from __future__ import annotations

import inspect
import pickle
from collections import Counter
from fractions import Fraction
from typing import NamedTuple

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ingesting import ingested, json_lines

from helix_data.config import MixtureConfig
from helix_data.mixture import Mixture
from helix_data.slots import Slots, slots_of
from helix_kernel import Kernel
from helix_kernel.errors import ArgumentError, ConfigError

seeds = st.integers(0, 2**64 - 1)
names = st.sampled_from("abcdef")


class Numbered(NamedTuple):
    inputs: torch.Tensor
    targets: torch.Tensor


@attrs.frozen
class Counting:
    """Row n of this part holds (number of the part, n); it knows no rows, only batches."""

    number: int
    batch_size: int = 3
    seq_len: int = 2
    vocab_size: int = 256
    fingerprint: str = "counted"

    def batch(self, *, seed, step, rank=0, world_size=1):
        first = (step * world_size + rank) * self.batch_size
        rows = [[self.number, first + row] for row in range(self.batch_size)]
        return Numbered(torch.tensor(rows), torch.tensor(rows))

    def held_out(self):
        return np.arange(self.number, self.number + 5)

    def describe(self):
        return f"part {self.number}"


class Masked(Counting):
    def batch(self, **arguments):
        batch = super().batch(**arguments)
        return MaskedBatch(*batch, batch.inputs > 100)


class MaskedBatch(NamedTuple):
    inputs: torch.Tensor
    targets: torch.Tensor
    mask: torch.Tensor


def mixture(weights, batch_size=4, make=Counting, **options):
    parts = {name: make(number, **options) for number, name in enumerate(sorted(weights))}
    return Mixture(parts=parts, weights=weights, batch_size=batch_size)


@given(
    weights=st.dictionaries(names, st.integers(1, 9), min_size=1, max_size=5),
    seed=seeds,
    block=st.integers(0, 10**9),
)
@settings(max_examples=60, deadline=None)
def test_every_block_has_the_exact_shares_of_the_weights(weights, seed, block):
    counts = slots_of(weights)
    slots = Slots(list(counts.values()))
    drawn = Counter(slots.parts(block * len(slots), len(slots), seed=seed).tolist())
    total = sum(weights.values())
    for number, name in enumerate(counts):
        assert Fraction(drawn[number], len(slots)) == Fraction(weights[name], total)


@pytest.mark.parametrize(
    ("weights", "counts"),
    [
        ({"a": 0.7, "b": 0.3}, {"a": 49, "b": 21}),
        ({"a": 1, "b": 1, "c": 1}, {"a": 22, "b": 22, "c": 22}),
        ({"a": 2.5, "b": 0}, {"a": 64, "b": 0}),
        ({"a": 0.5, "b": 0.001, "c": 0.499}, {"a": 500, "b": 1, "c": 499}),
        ({"a": 1, "b": 1e-9}, {"a": 4095, "b": 1}),
    ],
)
def test_weights_are_slots_of_a_block(weights, counts):
    assert slots_of(weights) == counts


@given(weights=st.dictionaries(names, st.floats(1e-6, 1e6), min_size=1, max_size=6))
@settings(max_examples=100, deadline=None)
def test_shares_that_no_block_can_express_are_rounded_by_less_than_a_part_each(weights):
    counts = slots_of(weights)
    size, total = sum(counts.values()), sum(weights.values())
    assert 64 <= size <= 4096 + 64
    for name, weight in weights.items():
        assert counts[name] >= 1
        assert abs(counts[name] - size * weight / total) <= len(weights)


@given(counts=st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any), seed=seeds, data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_rows_of_a_part_before_any_row_are_counted_at_once(counts, seed, data):
    slots = Slots(counts)
    first = data.draw(st.integers(0, 4 * len(slots)))
    drawn = Counter(slots.parts(0, first, seed=seed).tolist())
    assert slots.before(first, seed=seed) == [drawn[part] for part in range(len(counts))]
    far = 10**17 + first
    step = [
        b - a for a, b in zip(slots.before(far, seed=seed), slots.before(far + 1, seed=seed), strict=True)
    ]
    assert step.index(1) == slots.parts(far, 1, seed=seed)[0]
    assert sum(step) == 1


def test_blocks_differ_and_parts_are_spread_in_them():
    slots = Slots([32, 32])
    blocks = [tuple(slots.parts(64 * block, 64, seed=1).tolist()) for block in range(20)]
    assert len(set(blocks)) == 20
    assert max(len(run) for block in blocks for run in "".join(map(str, block)).split("0")) < 20


@given(seed=seeds, step=st.integers(0, 10**6), own=st.integers(1, 7), weight=st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_ranks_share_the_batches_of_one_rank_in_order(seed, step, own, weight):
    weights = {"a": weight, "b": 3, "c": 1}
    whole = mixture(weights, batch_size=8).batch(seed=seed, step=step)
    for world_size in (1, 2, 4):
        ranks = Mixture(
            parts={name: Counting(n, batch_size=own) for n, name in enumerate("abc")},
            weights=weights,
            batch_size=8 // world_size,
        )
        found = [ranks.batch(seed=seed, step=step, rank=r, world_size=world_size) for r in range(world_size)]
        assert torch.equal(torch.cat([batch.inputs for batch in found]), whole.inputs)
        assert torch.equal(torch.cat([batch.targets for batch in found]), whole.targets)


@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_each_part_gives_its_own_rows_in_their_order(seed):
    rows = mixture({"a": 0.5, "b": 0.3, "c": 0.2}).rows(0, 300, seed=seed).inputs.tolist()
    for number in range(3):
        own = [row for part, row in rows if part == number]
        assert own == list(range(len(own)))
    named = mixture({"a": 0.5, "b": 0.3, "c": 0.2}).part_of_rows(0, 300, seed=seed)
    assert named == ["abc"[part] for part, _ in rows]


def test_a_batch_far_on_costs_what_the_first_costs():
    calls = []

    class Watched(Counting):
        def batch(self, **arguments):
            calls.append(arguments["step"])
            return super().batch(**arguments)

    found = mixture({"a": 1, "b": 2}, make=Watched)
    found.batch(seed=0, step=0)
    n_first = len(calls)
    found.batch(seed=0, step=10**9)
    assert len(calls) - n_first <= 4
    assert max(calls) > 10**8


def test_a_part_of_shards_gives_the_rows_that_it_gives_alone(tmp_path):
    from helix_data.byte_shards import ByteShards
    from helix_data.text_bytes import TextBytes

    ingested(
        tmp_path / "out",
        [json_lines(tmp_path / "a.jsonl", ["shards " * 40, "b" * 90])],
        validation_fraction=0,
    )
    (tmp_path / "text").write_text("Some text, that is long enough. " * 30)
    parts = {
        "shards": ByteShards(path=str(tmp_path / "out"), seq_len=16, batch_size=5, packing="documents"),
        "text": TextBytes(paths=[str(tmp_path / "text")], seq_len=16, batch_size=3),
    }
    found = Mixture(parts=parts, weights={"shards": 1, "text": 2}, batch_size=10)
    batch, of = found.rows(20, 60, seed=4), found.part_of_rows(0, 80, seed=4)
    for name, part in parts.items():
        first = of[:20].count(name)
        own = [row for row, chosen in enumerate(of[20:]) if chosen == name]
        alone = [part.batch(seed=4, step=step) for step in range(first // part.batch_size, 60)]
        skipped = first % part.batch_size
        for field in ("inputs", "targets"):
            rows = torch.cat([getattr(b, field) for b in alone])[skipped : skipped + len(own)]
            assert torch.equal(getattr(batch, field)[own], rows)
    text_rows = [row for row, chosen in enumerate(of[20:]) if chosen == "text"]
    assert batch.mask[text_rows].all()
    assert not batch.mask.all()
    assert batch.input_mask is None
    n_targets = sum(int(b.mask.sum()) for b in found.evaluation_batches())
    assert n_targets == len(parts["text"].held_out()) - 1


def test_a_mask_that_one_part_has_is_in_every_batch():
    parts = {"a": Counting(0), "b": Masked(200)}
    rare = Mixture(parts=parts, weights={"a": 4000, "b": 1}, batch_size=2)
    assert all(rare.batch(seed=0, step=step).mask is not None for step in range(20))
    even = Mixture(parts=parts, weights={"a": 1, "b": 1}, batch_size=64).batch(seed=0, step=0)
    assert torch.equal(even.mask, (even.inputs > 100) | (even.inputs[:, :1] == 0))
    plain = Mixture(parts={"a": Counting(0)}, weights={"a": 1})
    assert (plain.batch(seed=0, step=0).mask, plain.batch(seed=0, step=0).input_mask) == (None, None)


def test_the_order_in_which_parts_are_named_changes_nothing():
    parts = {name: Counting(number) for number, name in enumerate("abc")}
    weights = {"a": 1, "b": 2, "c": 3}
    turned = [dict(reversed(table.items())) for table in (parts, weights)]
    one, other = Mixture(parts=parts, weights=weights), Mixture(parts=turned[0], weights=turned[1])
    assert torch.equal(one.batch(seed=1, step=7).inputs, other.batch(seed=1, step=7).inputs)
    assert one.fingerprint == other.fingerprint
    assert one.fingerprint != mixture({"a": 1, "b": 2, "c": 4}).fingerprint
    assert "3 of c (part 2)" in one.describe()


@pytest.mark.parametrize(
    ("parts", "weights", "words"),
    [
        ({}, {}, "parts is empty; name at least one dataset"),
        ({"ab": Counting(0)}, {"ba": 1}, "weights has none for the part 'ab'"),
        ({"books": Counting(0)}, {"books": 1, "boks": 1}, r"weights.boks: no part .* Did you mean 'books'\?"),
        ({"a": Counting(0)}, {"a": -1.0}, r"weights.a is -1.0, allowed is a finite number >= 0"),
        ({"a": Counting(0)}, {"a": float("nan")}, "weights.a is nan"),
        ({"a": Counting(0)}, {"a": 0}, "weights: all are 0"),
        (
            {"a": Counting(0), "b": Counting(1, vocab_size=257)},
            {"a": 1, "b": 1},
            "vocab_size must be the same for all to stand in one batch: a has 256, b has 257",
        ),
        ({"a": Counting(0), "b": Counting(1, seq_len=8)}, {"a": 1, "b": 1}, "seq_len must be .* b has 8"),
    ],
)
def test_parts_that_do_not_fit_are_said(parts, weights, words):
    with pytest.raises(ArgumentError, match=words):
        Mixture(parts=parts, weights=weights)


def test_targets_of_two_shapes_are_said():
    class Labelled(Counting):
        def batch(self, **arguments):
            inputs, targets = super().batch(**arguments)
            return Numbered(inputs, targets[:, 0])

    found = Mixture(parts={"a": Counting(0), "b": Labelled(1)}, weights={"a": 1, "b": 1})
    with pytest.raises(ArgumentError, match=r"one shape .*: a has \(2,\), b has \(\)"):
        found.batch(seed=0, step=0)


def test_a_config_nests_parts_and_names_what_is_wrong_in_them(tmp_path):
    (tmp_path / "text").write_text("Some text, that is long enough. " * 30)
    part = {"use": "text-bytes", "paths": [str(tmp_path / "text")], "seq_len": 8}
    table = {"use": "mixture", "weights": {"a": 0.5, "b": 0.5}, "parts": {"a": part, "b": dict(part)}}
    found = Kernel().build("dataset", table)
    assert found.batch(seed=0, step=0).inputs.shape == (16, 8)
    table["parts"]["b"]["seq_lne"] = 4
    with pytest.raises(ConfigError, match=r"parts\.b\.seq_lne: unknown option. Did you mean 'seq_len'"):
        Kernel().build("dataset", table)


def test_a_mixture_draws_where_a_part_may():
    @attrs.frozen
    class Still(Counting):
        draws = False

    still = Mixture(parts={"a": Still(0), "b": Still(1)}, weights={"a": 1, "b": 1})
    assert not still.draws
    assert mixture({"a": 1, "b": 1}).draws


def test_a_mixture_can_be_sent_to_another_process():
    found = mixture({"a": 1, "b": 2})
    expected = found.batch(seed=1, step=2)
    assert torch.equal(pickle.loads(pickle.dumps(found)).batch(seed=1, step=2).inputs, expected.inputs)


def test_config_and_dataset_take_the_same_options():
    assert {field.name for field in attrs.fields(MixtureConfig)} == set(inspect.signature(Mixture).parameters)
