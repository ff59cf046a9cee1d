"""The suite of loaders passes ours, and catches each of these faults."""

from __future__ import annotations

import threading

import pytest
import torch

from helix_data.loading.prefetch import Prefetch
from helix_data.testing.loaders import LoaderSuite
from helix_kernel import Kernel
from helix_kernel.randomness import batch_of
from helix_kernel.testing.faults import caught_by
from helix_kernel.testing.provider_cases import derive


class Inline:
    """Batches made when they are asked for; each fault below breaks one thing."""

    def __init__(self, *, dataset, seed, rank, world_size):
        self.dataset = dataset
        self.place = {"seed": seed, "rank": rank, "world_size": world_size}

    def batches(self, first, last):
        for step in range(first, last):
            try:
                batch = self.made(step)
            except Exception as error:
                error.add_note(f"while making batch {step}")
                raise
            yield batch

    def made(self, step):
        return batch_of(self.dataset, step=step, **self.place)


class LeavesOutTheLast(Inline):
    def batches(self, first, last):
        yield from super().batches(first, max(first, last - 1))


class SwapsTwo(Inline):
    def made(self, step):
        return super().made(step ^ 1)


class DrawsFromWhateverIsThere(Inline):
    def made(self, step):
        return self.dataset.batch(step=step, **self.place)


class GoesOnWhereItWas(Inline):
    n_made = -1

    def made(self, step):
        self.n_made += 1
        return super().made(self.n_made)


class ForgetsItsRank(Inline):
    def made(self, step):
        return batch_of(self.dataset, step=step, seed=self.place["seed"])


class SeedsTheGlobalGenerator(Inline):
    def made(self, step):
        torch.manual_seed(step)
        return super().made(step)


class HandsOutOneBuffer(Inline):
    buffer = torch.zeros(4, dtype=torch.int64)

    def made(self, step):
        found = super().made(step)
        return {**found, "place": self.buffer.copy_(found["place"])}


class LeavesAThread(Inline):
    ended = threading.Event()

    def batches(self, first, last):
        threading.Thread(target=self.ended.wait, name="reader", daemon=True).start()
        yield from super().batches(first, last)


class SwallowsErrors(Inline):
    def batches(self, first, last):
        try:
            yield from super().batches(first, last)
        except KeyError:
            return


class SaysNotWhich(Inline):
    def batches(self, first, last):
        for step in range(first, last):
            yield self.made(step)


class SaysNotWhy(Inline):
    def batches(self, first, last):
        for step in range(first, last):
            try:
                batch = self.made(step)
            except KeyError:
                batch = None
            if batch is None:
                raise RuntimeError(f"batch {step} failed")
            yield batch


class MakesAllBeforeTheFirst(Inline):
    def batches(self, first, last):
        yield from list(super().batches(first, last))


FAULTS = [
    (LeavesOutTheLast, "test_batches_come_in_order_as_the_dataset_makes_them", r"yields 5, not 6"),
    (
        SwapsTwo,
        "test_batches_come_in_order_as_the_dataset_makes_them",
        r"batch 0 is not what .* \[3, 1, 0, 1\]",
    ),
    (DrawsFromWhateverIsThere, "test_batches_come_in_order_as_the_dataset_makes_them", "'torch', 'numpy'"),
    (
        GoesOnWhereItWas,
        "test_a_batch_depends_on_its_number_alone",
        "batch 7 is not .* after others were asked",
    ),
    (ForgetsItsRank, "test_each_rank_gets_its_share", "on rank 0 of 2"),
    (SeedsTheGlobalGenerator, "test_generators_are_as_they_were", "the generators of torch changed"),
    (HandsOutOneBuffer, "test_a_batch_is_the_callers_own", "they share its memory"),
    (LeavesAThread, "test_nothing_runs_on", "thread reader .* still run .* batches were closed early"),
    (SwallowsErrors, "test_an_error_of_the_dataset_arrives_in_its_place", "no error arrives"),
    (SaysNotWhich, "test_an_error_of_the_dataset_arrives_in_its_place", "does not name the batch, 1714"),
    (SaysNotWhy, "test_an_error_of_the_dataset_arrives_in_its_place", "does not say why"),
    (
        MakesAllBeforeTheFirst,
        "test_an_error_of_the_dataset_arrives_in_its_place",
        "the error arrives at 1711",
    ),
]


@pytest.mark.parametrize(("fault", "case", "says"), FAULTS, ids=[row[0].__name__ for row in FAULTS])
def test_a_fault_is_caught_by_the_case_meant_for_it(tmp_path, monkeypatch, fault, case, says):
    monkeypatch.setattr("helix_data.testing.loaders._GRACE_SECONDS", 0.1)
    LeavesAThread.ended.clear()
    try:
        caught_by(of(fault), case, says, right=of(Inline), tmp_path=tmp_path)
    finally:
        LeavesAThread.ended.set()


def of(loader):
    def make_loader(self, dataset, *, rank=0, world_size=1):
        return loader(dataset=dataset, seed=self.seed, rank=rank, world_size=world_size)

    return type("Suite", (LoaderSuite,), {"make_loader": make_loader})


def test_a_batch_that_cannot_be_made_here_is_named_too():
    class Broken:
        def batch(self, **place):
            raise KeyError("a word")

    with pytest.raises(KeyError) as caught:
        next(Prefetch(dataset=Broken(), seed=0).batches(5, 6))
    assert caught.value.__notes__ == ["while making batch 5"]


globals().update(
    (f"Test_{name}", suite)
    for name, suite in derive(Kernel(plugins=["helix-data"]), "helix-data").items()
    if name.startswith("loader-")
)
