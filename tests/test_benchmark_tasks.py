"""The synthetic tasks: what is asked follows from what was shown, and every batch can be drawn again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent / "benchmarks/sequence"))
from tasks import MARKER, N_COPIED, N_KEYS, N_PAIRS, N_SYMBOLS, N_TOKENS, NOISE, SPACING, TASKS, Batch

ROWS = 32


def answer_mqar(row: list[int], place: int) -> int:
    """The value that followed the key when it was first seen."""
    return row[row.index(row[place]) + 1]


def answer_selective_copying(row: list[int], place: int) -> int:
    """The n-th symbol, at the n-th marker."""
    symbols = [token for token in row if token < N_SYMBOLS]
    return symbols[row[:place].count(MARKER)]


def answer_induction(row: list[int], place: int) -> int:
    """What followed this token when it was first seen."""
    return row[row.index(row[place]) + 1]


def answer_delay(row: list[int], place: int) -> int:
    """The token that stood half of the length before."""
    return row[place - TASKS["delay"].lengths[0] // 2]


def answer_parity(row: list[int], place: int) -> int:
    """Whether an odd number of ones stands up to here."""
    return sum(row[: place + 1]) % 2


ANSWERS = {
    "mqar": answer_mqar,
    "selective-copying": answer_selective_copying,
    "induction": answer_induction,
    "delay": answer_delay,
    "parity": answer_parity,
}


def batches(name: str) -> list[Batch]:
    task = TASKS[name]
    tests = [task.test(seed=1, rows=ROWS, length=length) for length in task.lengths]
    return [task.batch(seed=1, step=0), task.batch(seed=1, step=7), *tests]


def test_every_task_has_an_answer_here():
    assert ANSWERS.keys() == TASKS.keys()


@pytest.mark.parametrize("name", TASKS)
def test_the_answer_follows_from_the_inputs_up_to_its_place(name: str):
    for batch in batches(name):
        for row, place in batch.mask.nonzero().tolist():
            seen = batch.inputs[row, : place + 1].tolist()
            assert batch.targets[row, place] == ANSWERS[name](seen, place), (name, row, place)


@pytest.mark.parametrize("name", TASKS)
def test_ids_are_in_the_vocabulary_and_every_row_asks_something(name: str):
    for batch in batches(name):
        assert batch.inputs.dtype == batch.targets.dtype == torch.int64
        assert batch.mask.dtype == torch.bool
        assert batch.inputs.shape == batch.targets.shape == batch.mask.shape
        for ids in (batch.inputs, batch.targets):
            assert ids.min() >= 0
            assert ids.max() < TASKS[name].vocab_size
        assert batch.mask.any(dim=1).all()
        assert (batch.targets[~batch.mask] == 0).all()


@pytest.mark.parametrize("name", TASKS)
def test_a_batch_is_a_function_of_its_seed_and_step(name: str):
    task = TASKS[name]
    first, again, other_step, other_seed = (
        task.batch(seed=seed, step=step) for seed, step in ((3, 5), (3, 5), (3, 6), (4, 5))
    )
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))
    assert not torch.equal(first.inputs, other_step.inputs)
    assert not torch.equal(first.inputs, other_seed.inputs)


@pytest.mark.parametrize("name", TASKS)
def test_test_rows_are_no_training_rows(name: str):
    task = TASKS[name]
    training = {tuple(row) for step in range(4) for row in task.batch(seed=0, step=step).inputs.tolist()}
    tested = {tuple(row) for row in task.test(seed=0, rows=ROWS, length=task.lengths[0]).inputs.tolist()}
    assert not training & tested


@pytest.mark.parametrize("name", ["induction", "delay", "parity"])
def test_one_answer_always_is_right_no_more_often_than_the_guess(name: str):
    task = TASKS[name]
    batch = task.test(seed=0, rows=2000, length=task.lengths[0])
    counts = batch.targets[batch.mask].bincount()
    assert counts.max() / counts.sum() < task.guess * 1.3


@pytest.mark.parametrize("name", ["mqar", "selective-copying"])
def test_the_commonest_of_the_answers_shown_is_right_as_often_as_the_guess(name: str):
    task = TASKS[name]
    batch = task.test(seed=0, rows=4000, length=task.lengths[0])
    shown = batch.inputs[:, 1 : 2 * N_PAIRS : 2] if name == "mqar" else batch.targets[:, -N_COPIED:]
    right = (batch.targets == shown.mode(dim=1).values[:, None])[batch.mask]
    assert right.float().mean() == pytest.approx(task.guess, abs=0.02)


def test_a_recall_test_has_all_pairs_and_asks_for_each():
    batch = TASKS["mqar"].test(seed=0, rows=ROWS, length=128)
    for inputs, mask in zip(batch.inputs.tolist(), batch.mask.tolist(), strict=True):
        assert len(set(inputs[: 2 * N_PAIRS : 2])) == N_PAIRS
        assert set(inputs[::2]) == set(inputs[: 2 * N_PAIRS : 2])
        assert mask == [False] * 2 * N_PAIRS + [True, False] * (64 - N_PAIRS)
    assert batch.inputs[:, ::2].max() < N_KEYS <= batch.inputs[:, 1::2].min()


def test_recall_asks_more_often_for_pairs_close_by():
    batch = TASKS["mqar"].test(seed=0, rows=2048, length=32)
    first_query = batch.inputs[:, 2 * N_PAIRS]
    asked = (batch.inputs[:, : 2 * N_PAIRS : 2] == first_query[:, None]).float().mean(0)
    gaps = torch.arange(N_PAIRS, 0, -1)
    expected = gaps**-0.99
    torch.testing.assert_close(asked, expected / expected.sum(), atol=0.04, rtol=0)


def test_copying_hides_its_symbols_at_places_that_vary():
    batch = TASKS["selective-copying"].test(seed=0, rows=ROWS, length=32)
    context = batch.inputs[:, :-N_COPIED]
    assert ((context < N_SYMBOLS).sum(1) == N_COPIED).all()
    assert ((context < N_SYMBOLS) | (context == NOISE)).all()
    assert (context < N_SYMBOLS).any(0).float().mean() > 0.9


def test_an_induction_test_shows_its_answer_once_near_the_beginning():
    for length in TASKS["induction"].lengths:
        batch = TASKS["induction"].test(seed=0, rows=ROWS, length=length)
        special = batch.inputs == N_TOKENS
        assert (special.sum(1) == 2).all()
        assert (batch.mask.sum(1) == 1).all()
        first, last = special.nonzero()[:, 1].view(ROWS, 2).T
        assert first.max() < SPACING
        assert (batch.mask.int().argmax(1) == last).all()
        assert last.min() >= length - SPACING


def test_a_parity_test_asks_in_the_second_half_only():
    mask = TASKS["parity"].test(seed=0, rows=2, length=32).mask
    assert not mask[:, :16].any()
    assert mask[:, 16:].all()
