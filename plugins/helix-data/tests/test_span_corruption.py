"""Span corruption: how much is blanked out, where, and that it is a function of (seed, step, rank)."""

import inspect
from itertools import groupby

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_data.config import SpanCorruptionConfig
from helix_data.span_corruption import MASK_ID, SpanCorruption
from helix_data.text_bytes import TextBytes
from helix_kernel.errors import ArgumentError

CORPUS_SIZE = 1000
arguments = st.fixed_dictionaries(
    {"seed": st.integers(0, 2**64 - 1), "step": st.integers(0, 10**12), "world_size": st.integers(1, 5)}
)
options = st.fixed_dictionaries(
    {
        "seq_len": st.integers(2, 120),
        "batch_size": st.integers(1, 5),
        "corruption_rate": st.floats(0.01, 0.99),
        "mean_span_length": st.floats(1, 10),
    }
)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "text"
    path.write_bytes(bytes(index % 251 for index in range(CORPUS_SIZE)))
    return [str(path)]


def spans(row):
    """Return the lengths of a mask's runs of True."""
    return [len(list(run)) for corrupted, run in groupby(row.tolist()) if corrupted]


@given(arguments=arguments, options=options)
@settings(max_examples=50, deadline=None)
def test_a_batch_depends_on_its_arguments_alone_at_any_world_size(paths, arguments, options):
    seed, step, world_size = (arguments[name] for name in ("seed", "step", "world_size"))
    used = SpanCorruption(paths=paths, **options)
    used.batch(seed=seed ^ 1, step=0)
    ranks = [used.batch(rank=rank, **arguments) for rank in range(world_size)]
    alone = SpanCorruption(paths=paths, **{**options, "batch_size": options["batch_size"] * world_size})
    for parts, whole in zip(zip(*ranks, strict=True), alone.batch(seed=seed, step=step), strict=True):
        assert torch.equal(torch.cat(parts), whole)


@given(arguments=arguments, options=options)
@settings(max_examples=50, deadline=None)
def test_what_is_corrupted_is_the_mask_id_and_the_rest_is_the_text(paths, arguments, options):
    inputs, targets, mask = SpanCorruption(paths=paths, **options).batch(**arguments)
    shape = {name: options[name] for name in ("seq_len", "batch_size")}
    assert torch.equal(targets, TextBytes(paths=paths, **shape).batch(**arguments).inputs)
    assert (inputs.dtype, targets.dtype, mask.dtype) == (torch.int64, torch.int64, torch.bool)
    assert torch.equal(inputs, torch.where(mask, MASK_ID, targets))
    assert MASK_ID == 256 < SpanCorruption.vocab_size


@given(arguments=arguments, options=options)
@settings(max_examples=50, deadline=None)
def test_every_window_has_the_share_and_number_of_spans_that_are_asked_for(paths, arguments, options):
    seq_len, rate = options["seq_len"], options["corruption_rate"]
    mask = SpanCorruption(paths=paths, **options).batch(**arguments).mask
    for row in mask:
        n_corrupted = int(row.sum())
        assert 1 <= n_corrupted < seq_len
        assert abs(n_corrupted - rate * seq_len) <= 1
        wanted = max(1, round(n_corrupted / options["mean_span_length"]))
        assert len(spans(row)) == min(wanted, seq_len - n_corrupted + 1)  # each apart from the next


def test_the_papers_example_has_25_spans_in_500_tokens(paths):
    """Section 3.1.4: "500 tokens and we have specified that 15 % should be corrupted" in spans of 3."""
    mask = SpanCorruption(paths=paths, seq_len=500, batch_size=4).batch(seed=0, step=0).mask
    assert mask.sum(dim=1).tolist() == [75] * 4
    assert [len(spans(row)) for row in mask] == [25] * 4


def test_every_placement_is_equally_likely(paths):
    """Two spans of three bytes in six: the ways to place them are few enough to count."""
    dataset = SpanCorruption(
        paths=paths, seq_len=6, batch_size=100, corruption_rate=0.5, mean_span_length=1.5
    )
    counts = {}
    for step in range(30):
        for row in dataset.batch(seed=0, step=step).mask.tolist():
            counts[tuple(row)] = counts.get(tuple(row), 0) + 1
    possible = [
        bits
        for bits in np.ndindex(*[2] * 6)
        if sum(bits) == 3 and len(spans(np.array(bits, dtype=bool))) == 2
    ]
    assert counts.keys() == {tuple(bool(bit) for bit in bits) for bits in possible}
    expected = 3000 / len(possible)
    chi_squared = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi_squared < 2.5 * len(possible)


def test_seeds_steps_and_rows_have_masks_of_their_own(paths):
    dataset = SpanCorruption(paths=paths, seq_len=60, batch_size=4)
    masks = [dataset.batch(seed=seed, step=step).mask for seed in (0, 1) for step in (0, 1)]
    masks.append(next(dataset.evaluation_batches()).mask)
    rows = {tuple(row.tolist()) for mask in masks for row in mask}
    assert len(rows) == sum(map(len, masks))


def test_batches_stay_what_they_were_in_earlier_releases(paths):
    """A change here breaks exact resume of every run begun before it."""
    batch = SpanCorruption(paths=paths, seq_len=40, batch_size=1).batch(seed=7, step=3)
    assert batch.mask[0].nonzero().flatten().tolist() == [3, 4, 33, 34, 35, 36]


@pytest.mark.parametrize(("seq_len", "batch_size"), [(10, 3), (30, 2), (99, 4), (100, 1), (150, 2)])
def test_evaluation_visits_the_held_out_bytes_once_and_always_the_same_way(paths, seq_len, batch_size):
    dataset = SpanCorruption(paths=paths, seq_len=seq_len, batch_size=batch_size)
    batches, again = list(dataset.evaluation_batches()), list(dataset.evaluation_batches())
    seen = torch.cat([batch.targets.flatten() for batch in batches])
    left_out = 1 if seq_len == 99 else 0  # a byte alone, from which nothing can be filled in
    assert seen.tolist() == dataset.held_out()[: 100 - left_out].tolist()
    assert all(len(batch.targets) <= batch_size for batch in batches)
    for batch, other in zip(batches, again, strict=True):
        assert torch.equal(batch.inputs, other.inputs)
        assert torch.equal(batch.inputs, torch.where(batch.mask, MASK_ID, batch.targets))
        assert bool(batch.mask.any(dim=1).all())


def test_nothing_need_be_held_out(paths):
    dataset = SpanCorruption(paths=paths, seq_len=20, validation_fraction=0)
    assert list(dataset.evaluation_batches()) == []


def test_describes_itself(paths):
    dataset = SpanCorruption(paths=paths, seq_len=20)
    line = dataset.describe()
    assert line.startswith("span-corruption of 15% in spans of 3 bytes; text-bytes paths=")
    assert dataset.fingerprint == TextBytes(paths=paths, seq_len=20).fingerprint
    assert dataset.fingerprint in line


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"seq_len": 1}, "seq_len is 1, allowed is >= 2"),
        ({"corruption_rate": 0.0}, "corruption_rate is 0.0, allowed is > 0 and < 1"),
        ({"corruption_rate": 1.0}, "corruption_rate is 1.0, allowed is > 0 and < 1"),
        ({"mean_span_length": 0.5}, "mean_span_length is 0.5, allowed is >= 1"),
        ({"paths": [], "source": None}, "neither source nor paths is given"),
    ],
)
@pytest.mark.parametrize("target", [SpanCorruption, SpanCorruptionConfig])
def test_wrong_arguments_are_said_by_dataset_and_config(target, paths, wrong, words):
    with pytest.raises(ArgumentError, match=words):
        target(**{"paths": paths, **wrong})


def test_config_and_dataset_take_the_same_options():
    fields = {field.name: field.default for field in attrs.fields(SpanCorruptionConfig)}
    signature = inspect.signature(SpanCorruption).parameters
    assert fields == {name: parameter.default for name, parameter in signature.items()}
