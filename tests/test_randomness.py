"""What a batch draws depends on which batch it is, and drawing it leaves no trace."""

from __future__ import annotations

import pickle
import random

import numpy as np
import pytest
import torch

from helix_kernel.randomness import batch_of, drawing_for, seed_generators


def drawn():
    """Return a number of each global generator, and of NumPy's and torch's a normal one."""
    return (
        random.random(),
        random.gauss(0, 1),
        float(np.random.random()),
        float(np.random.standard_normal()),
        torch.rand(()).item(),
        torch.randn(()).item(),
    )


def state():
    return pickle.dumps((random.getstate(), np.random.get_state(), torch.get_rng_state().numpy().tobytes()))


class Drawing:
    """A dataset that draws, as most of other people's do."""

    def batch(self, *, seed, step, rank=0, world_size=1):
        return (seed, step, rank, world_size, *drawn())


class Alone:
    """A dataset that knows of no ranks and says that it draws nothing."""

    draws = False

    def batch(self, *, seed, step):
        return seed, step, *drawn()


class Failing:
    """A dataset that draws, and then has no such batch."""

    def batch(self, *, seed, step):
        raise KeyError(drawn())


def test_the_generators_are_put_back_to_the_bit():
    # An odd number of normal ones leaves each generator with the second of a pair.
    drawn()
    before = state()
    with drawing_for(1, 2):
        drawn()
        assert state() != before
    assert state() == before


def test_the_generators_are_put_back_when_drawing_fails():
    before = state()
    with pytest.raises(KeyError):
        batch_of(Failing(), seed=9, step=2)
    assert state() == before


def test_what_is_drawn_does_not_depend_on_what_was_drawn_before():
    with drawing_for(1, 2):
        first = drawn()
    drawn()
    with drawing_for(1, 2):
        assert drawn() == first


def test_one_inside_another_leaves_the_outer_one_as_it_was():
    with drawing_for(1, 2):
        expected = [drawn(), drawn()]
    with drawing_for(1, 2):
        found = [drawn()]
        with drawing_for(1, 3):
            drawn()
        found.append(drawn())
    assert found == expected


def test_each_seed_step_and_rank_draws_numbers_of_its_own():
    places = [
        (0, 0, 0),
        (0, 0, 1),
        (0, 1, 0),
        (1, 0, 0),
        (0, 1, 1),
        (11, 1, 1),
        (1, 11, 1),
        (2**64 - 1, 0, 0),
    ]
    numbers = set()
    for place in places:
        with drawing_for(*place):
            numbers.update(drawn())
    assert len(numbers) == len(places) * len(drawn())


def test_the_numbers_are_the_same_in_every_process_and_version():
    """Of the numbers that each generator promises to keep; a change here makes every run resume wrongly."""
    with drawing_for(7, 1000, 3):
        found = random.random(), float(np.random.random()), torch.rand((), dtype=torch.float64).item()
    assert found == (0.9351471880218926, 0.26298903982840083, 0.30681926728258024)


def test_a_process_without_torch_and_numpy_draws_what_one_with_them_does(python):
    program = (
        "import random, sys\n"
        "from helix_kernel.randomness import drawing_for\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)\n"
        "with drawing_for(5, 6, 7): print(random.random())"
    )
    with drawing_for(5, 6, 7):
        assert python(program).strip() == str(random.random())


def test_a_worker_is_seeded_as_the_training_process_is():
    with drawing_for(3, 4, 5):
        expected = drawn()
    kept = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed_generators(3, 4, 5)
    found = drawn()
    random.setstate(kept[0]), np.random.set_state(kept[1]), torch.set_rng_state(kept[2])
    assert found == expected


def test_a_batch_is_the_same_whatever_was_drawn_before():
    before = batch_of(Drawing(), seed=1, step=2, rank=1, world_size=2)
    drawn()
    assert batch_of(Drawing(), seed=1, step=2, rank=1, world_size=2) == before
    assert before[:4] == (1, 2, 1, 2)


def test_of_a_dataset_that_draws_nothing_the_generators_are_left_alone():
    before = state()
    assert batch_of(Alone(), seed=1, step=2)[:2] == (1, 2)
    assert state() != before
