"""The suite of datasets passes ours, and catches each of these faults."""

from __future__ import annotations

import functools
import itertools
import random

import numpy as np
import pytest
import torch

from helix_data.testing.datasets import DatasetSuite
from helix_data.testing.places import place
from helix_data.text_bytes import Batch, TextBytes
from helix_data.windows import Windows
from helix_kernel import Kernel
from helix_kernel.testing.faults import caught_by
from helix_kernel.testing.provider_cases import derive


@functools.cache
def kernel():
    return Kernel(plugins=["helix-data"])


class Text(TextBytes):
    """`TextBytes` over a small corpus; each fault below breaks one thing."""

    def __init__(self):
        super().__init__(paths=[place("<files>")], seq_len=16, batch_size=4)


class DependsOnTheOrderOfCalls(Text):
    n_calls = 0

    def batch(self, *, seed, step, rank=0, world_size=1):
        self.n_calls += 1
        return super().batch(seed=seed, step=self.n_calls, rank=rank, world_size=world_size)


class DrawsAndDeniesIt(Text):
    def batch(self, *, seed, step, rank=0, world_size=1):
        found = super().batch(seed=seed, step=step, rank=rank, world_size=world_size)
        order = random.sample(range(4), 4)
        return Batch(found.inputs[order], found.targets[order])


class SwitchesGeneratorsOnTheSly(Text):
    def batch(self, *, seed, step, rank=0, world_size=1):
        np.random.seed(seed)
        return super().batch(seed=seed, step=step, rank=rank, world_size=world_size)


class IgnoresTheSeed(Text):
    def batch(self, *, seed, step, rank=0, world_size=1):
        return super().batch(seed=0, step=step, rank=rank, world_size=world_size)


class GivesRanksTheSame(Text):
    def batch(self, *, seed, step, rank=0, world_size=1):
        super().batch(seed=seed, step=step, rank=rank, world_size=world_size)
        return super().batch(seed=seed, step=step)


class OverlapsRanks(Text):
    def batch(self, *, seed, step, rank=0, world_size=1):
        super().batch(seed=seed, step=step, rank=rank, world_size=world_size)
        starts = self._windows.starts((step * world_size + rank) * 4 - 2 * rank, 4, seed=seed)
        windows = torch.from_numpy(self._stream.gather(starts, 17).astype(np.int64))
        return Batch(windows[:, :-1].clone(), windows[:, 1:].clone())


class ShrinksItsLastBatch(Text):
    def batch(self, *, seed, step, rank=0, world_size=1):
        found = super().batch(seed=seed, step=step, rank=rank, world_size=world_size)
        return Batch(found.inputs[:3], found.targets[:3]) if step == 5 else found


class LeavesItsVocabulary(Text):
    vocab_size = 64


class SharesItsMemory(Text):
    @functools.cached_property
    def held(self):
        return {}

    def batch(self, *, seed, step, rank=0, world_size=1):
        found = super().batch(seed=seed, step=step, rank=rank, world_size=world_size)
        return self.held.setdefault((seed, step, rank, world_size), found)


class HasAnotherFingerprintEachTime(Text):
    fingerprint = property(lambda self: str(id(self)))


class CannotBeSent(Text):
    def __getstate__(self):
        shorter = Windows(self.n_train - 100, seq_len=16, batch_size=4)
        return {**vars(self), "_windows": shorter}

    def __setstate__(self, state):
        vars(self).update(state)


class GoesThroughAllStepsBefore(Text):
    def batch(self, *, seed, step, rank=0, world_size=1):
        for earlier in range(step):
            self._windows.starts(earlier * 4, 4, seed=seed)
        return super().batch(seed=seed, step=step, rank=rank, world_size=world_size)


class DrawsWhatItIsMeasuredOn(Text):
    calls = itertools.count()

    def evaluation_batches(self):
        yield super().batch(seed=next(self.calls), step=0)


class TrainsOnWhatIsHeldOut(Text):
    def __init__(self):
        super().__init__()
        self.n_train -= 600


class WrapsRanksRound(Text):
    def batch(self, *, seed, step, rank=0, world_size=1):
        world_size = max(world_size, 1)
        return super().batch(seed=seed, step=abs(step), rank=rank % world_size, world_size=world_size)


FAULTS = [
    (DependsOnTheOrderOfCalls, "test_a_batch_depends_on_its_place_alone", "after other batches were made"),
    (DrawsAndDeniesIt, "test_a_batch_depends_on_its_place_alone", "may depend on seed, step, rank"),
    (
        SwitchesGeneratorsOnTheSly,
        "test_a_dataset_that_says_that_it_draws_nothing_leaves_generators_alone",
        "from numpy.random",
    ),
    (IgnoresTheSeed, "test_steps_and_seeds_give_different_batches", "does not depend on the seed"),
    (GivesRanksTheSame, "test_ranks_share_the_batches_that_one_rank_gets", "rank 1 of 2 .* ranks overlap"),
    (OverlapsRanks, "test_ranks_share_the_batches_that_one_rank_gets", "rank 1 of 2 .* ranks overlap"),
    (ShrinksItsLastBatch, "test_batches_are_alike_in_form", r"\(4, 16\).*\(3, 16\)"),
    (LeavesItsVocabulary, "test_ids_lie_in_the_vocabulary", "and vocab_size is 64"),
    (SharesItsMemory, "test_a_batch_has_memory_of_its_own", "batches share memory"),
    (HasAnotherFingerprintEachTime, "test_the_fingerprint_is_that_of_the_data", "have fingerprints"),
    (CannotBeSent, "test_another_process_makes_the_same_batches", "was pickled makes another"),
    (GoesThroughAllStepsBefore, "test_any_step_is_reached_directly", "compute its place"),
    (
        DrawsWhatItIsMeasuredOn,
        "test_what_is_measured_on_is_the_same_every_time",
        "batch 0 differs",
    ),
    (TrainsOnWhatIsHeldOut, "test_what_is_held_out_is_never_trained_on", "are held out, and trained on"),
    (WrapsRanksRound, "test_a_place_that_is_none_is_refused", "makes a batch; raise ArgumentError"),
]


@pytest.mark.parametrize(("fault", "case", "says"), FAULTS, ids=[fault.__name__ for fault, _, _ in FAULTS])
def test_a_fault_is_caught_by_the_case_meant_for_it(tmp_path, fault, case, says):
    caught_by(suite_of(fault), case, says, right=suite_of(Text), tmp_path=tmp_path)


def suite_of(dataset):
    return type("Suite", (DatasetSuite,), {"make_dataset": lambda self: dataset(), "repeats_nothing": True})


class TestText(DatasetSuite):
    repeats_nothing = True

    def make_dataset(self):
        return Text()


globals().update(
    {
        f"Test_{name}": suite
        for name, suite in derive(kernel(), "helix-data").items()
        if name.startswith("dataset-")
    }
)
