"""The conformance suite of datasets: what every dataset must do, whoever wrote it.

Subclass `DatasetSuite`, give it a dataset, and pytest runs the rest::

    class TestTextBytes(DatasetSuite):
        def make_dataset(self):
            return TextBytes(source="python-docs", seq_len=16, batch_size=4)
"""

from __future__ import annotations

import pickle
import random
import time
from typing import TYPE_CHECKING, Any

import pytest

from helix_data.testing.places import PLACES, filled, with_places
from helix_kernel.errors import ArgumentError
from helix_kernel.randomness import batch_of
from helix_kernel.testing.plain_state import copied, same
from helix_kernel.testing.pytree import leaves
from helix_kernel.testing.suite import Suite, applies_when

if TYPE_CHECKING:
    from collections.abc import Iterator

_GRAM = 12
_N_BATCHES = 40


def _draws_nothing(suite: DatasetSuite) -> bool:
    return not getattr(suite.make_dataset(), "draws", True)


def _repeats_nothing(suite: DatasetSuite) -> bool:
    made_up = any(name in repr(dict(suite.example)) for name in PLACES)
    return (suite.repeats_nothing or made_up) and any(True for _ in suite.held_out_rows())


def _is_of_ids(suite: DatasetSuite) -> bool:
    return getattr(suite.make_dataset(), "vocab_size", None) is not None


class DatasetSuite(Suite):
    """Pytest class of the dataset protocol (docs: "How Helix reads data").

    A subclass overrides `make_dataset`. A component's examples may name files that the suite makes up, as
    values of any option: ``"<files>"`` (a folder of text files), ``"<classes>"`` (a folder of them for each
    of two classes), ``"<shards>"`` (as ``helix data ingest`` makes them) and ``"<empty>"`` (a new folder).

    Attributes:
        seed: Of the order of the examples.
        repeats_nothing: Whether no twelve tokens of the data come twice; what is held out is then looked for
            in what is trained on. The places above are such data.
    """

    seed = 3
    repeats_nothing = False

    def make_dataset(self) -> Any:
        """Return a new dataset."""
        self.example = filled(dict(self.example))
        return self.build()

    def batch(self, dataset: Any, step: int, *, rank: int = 0, world_size: int = 1) -> Any:
        """Return a batch as a loader does, with generators seeded where the dataset draws from them."""
        return batch_of(dataset, seed=self.seed, step=step, rank=rank, world_size=world_size)

    def held_out_rows(self) -> Iterator[list[Any]]:
        """Yield the tokens of what is held out, row by row; nothing where nothing is."""
        dataset = self.make_dataset()
        if hasattr(dataset, "evaluation_batches"):
            for batch in dataset.evaluation_batches():
                yield from _rows(batch)
        elif len(text := dataset.held_out()):
            yield text.tolist()

    def test_a_batch_depends_on_its_place_alone(self) -> None:
        """Not on the batches before it, nor on what the process has drawn, nor on which object makes it."""
        first = {step: self._copy(self.make_dataset(), step) for step in (0, 1, 7)}
        dataset = self.make_dataset()
        for step in (7, 3, 0, 1, 7):
            random.seed(step)
            again = self._copy(dataset, step)
            assert step not in first or same(again, first[step]), (
                f"the batch of step {step} is another one after other batches were made; it may depend on "
                "seed, step, rank and world_size alone"
                + self._see("batch(7), batch(0)", "batch(7)  # should be the first batch again")
            )

    @applies_when("datasets that draw nothing", _draws_nothing)
    def test_a_dataset_that_says_that_it_draws_nothing_leaves_generators_alone(self) -> None:
        import numpy as np
        import torch

        dataset = self.make_dataset()
        before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # type: ignore[index]  # noqa: NPY002 - the global one
        dataset.batch(seed=self.seed, step=2)
        after = random.getstate(), np.random.get_state()[1], torch.get_rng_state()  # type: ignore[index]  # noqa: NPY002 - the global one
        assert before[0] == after[0], "draws is False, and batch() draws from the module random"
        assert (before[1] == after[1]).all(), "draws is False, and batch() draws from numpy.random"
        assert before[2].equal(after[2]), "draws is False, and batch() draws from torch's generator"

    def test_steps_and_seeds_give_different_batches(self) -> None:
        dataset = self.make_dataset()
        steps = [self._copy(dataset, step) for step in range(6)]
        assert not all(same(steps[0], other) for other in steps[1:]), "six steps give one batch" + (
            self._see("batch(0), batch(1)")
        )
        seeds = [copied(batch_of(dataset, seed=seed, step=0)) for seed in range(6)]
        assert not all(same(seeds[0], other) for other in seeds[1:]), (
            "six seeds give one batch: the order of the examples does not depend on the seed"
            + self._see("dataset.batch(seed=0, step=0), dataset.batch(seed=1, step=0)")
        )

    @pytest.mark.parametrize("world_size", [2, 3])
    @applies_when("datasets that draw nothing", _draws_nothing)
    def test_ranks_share_the_batches_that_one_rank_gets(self, world_size: int) -> None:
        """The order of the data is the same at any number of ranks, and no two ranks get the same."""
        dataset = self.make_dataset()
        for step in (0, 4):
            for rank in range(world_size):
                own = self.batch(dataset, step, rank=rank, world_size=world_size)
                alone = self.batch(dataset, step * world_size + rank)
                assert same(own, alone), (
                    f"step {step} of rank {rank} of {world_size} is not the batch {step * world_size + rank} "
                    "that one rank alone gets: ranks overlap, or the order changes with their number"
                    + self._see(
                        f"batch({step}, rank={rank}, world_size={world_size})",
                        f"batch({step * world_size + rank})",
                    )
                )

    def test_batches_are_alike_in_form(self) -> None:
        dataset = self.make_dataset()
        forms = [_form(self.batch(dataset, step)) for step in (0, 1, 5, 30)]
        for form in forms:
            assert form == forms[0], f"batches differ in form: {forms[0]} and {form}" + self._see("batch(0)")
        for tensor in _tensors(self.batch(dataset, 0)):
            assert tensor.shape[:1] == (dataset.batch_size,), (
                f"a tensor of a batch has shape {tuple(tensor.shape)}; its first axis is batch_size, "
                f"{dataset.batch_size}" + self._see("batch(0)")
            )
            assert tensor.device.type == "cpu", f"a batch is made on {tensor.device}; loaders move it"

    @applies_when("datasets of ids", _is_of_ids)
    def test_ids_lie_in_the_vocabulary(self) -> None:
        dataset = self.make_dataset()
        for step in range(4):
            inputs = self.batch(dataset, step)[0]
            if inputs.is_floating_point():
                continue
            low, high = int(inputs.min()), int(inputs.max())
            assert low >= 0, f"inputs of step {step} hold {low}, allowed is 0 and more"
            assert high < dataset.vocab_size, (
                f"inputs of step {step} hold {high}, and vocab_size is {dataset.vocab_size}"
                + self._see("batch(0)[0].max(), dataset.vocab_size")
            )

    def test_a_batch_has_memory_of_its_own(self) -> None:
        dataset = self.make_dataset()
        kept = self._copy(dataset, 1)
        for tensor in _tensors(self.batch(dataset, 1)):
            tensor.zero_()
        assert same(self._copy(dataset, 1), kept), (
            "writing into a batch changes the same batch when it is made again: batches share memory with "
            "the data" + self._see("batch(1)[0].zero_()", "batch(1)[0]")
        )

    def test_the_fingerprint_is_that_of_the_data(self) -> None:
        first, second = self.make_dataset(), self.make_dataset()
        self.batch(first, 5)
        assert isinstance(first.fingerprint, str), (
            f"fingerprint is {first.fingerprint!r}, allowed is a string"
        )
        assert first.fingerprint, "fingerprint is empty"
        assert first.fingerprint == second.fingerprint, (
            f"two datasets of the same data have fingerprints {first.fingerprint} and {second.fingerprint}"
        )
        told = first.describe()
        assert told.strip(), "describe() says nothing"
        assert "\n" not in told, f"describe() gives more than a line: {told!r}"

    def test_another_process_makes_the_same_batches(self) -> None:
        """A dataset is sent to workers by pickle."""
        dataset = self.make_dataset()
        self.batch(dataset, 0)
        sent = pickle.loads(pickle.dumps(dataset))  # noqa: S301 - our own
        assert same(self._copy(sent, 2), self._copy(dataset, 2)), (
            "a dataset that was pickled makes another batch"
            + self._see("import pickle", "pickle.loads(pickle.dumps(dataset)).batch(seed=seed, step=2)")
        )

    def test_any_step_is_reached_directly(self) -> None:
        """So that resuming costs the same at any step: what is drawn step by step shows as time."""
        dataset = self.make_dataset()
        usual = sorted(self._seconds(dataset, step) for step in range(5))[2]
        for step in (10, 1000, 30_000, 200_000):
            took = self._seconds(dataset, step)
            assert took <= 0.25 + 50 * usual, (
                f"the batch of step {step} takes {took:.2g} seconds of CPU, an early one {usual:.2g}; "
                "compute its place, do not go through all before it" + self._see(f"batch({step})")
            )

    def test_what_is_measured_on_is_the_same_every_time(self) -> None:
        dataset, other = self.make_dataset(), self.make_dataset()
        self.batch(other, 3)
        if not hasattr(dataset, "evaluation_batches"):
            assert bytes(dataset.held_out()) == bytes(other.held_out()), "held_out() differs between two"
            return
        first, second, third = (
            [copied(tuple(leaves(batch))) for batch in made.evaluation_batches()]
            for made in (dataset, dataset, other)
        )
        assert len(first) == len(second) == len(third), "evaluation_batches() differ in number"
        for number, batches in enumerate(zip(first, second, third, strict=True)):
            assert all(same(batches[0], batch) for batch in batches[1:]), (
                f"evaluation batch {number} differs from one call to the next"
                + self._see("next(iter(dataset.evaluation_batches()))")
            )

    @applies_when("data that repeat nothing, of which a part is held out", _repeats_nothing)
    def test_what_is_held_out_is_never_trained_on(self) -> None:
        """No twelve tokens in a row stand in both."""
        dataset, trained = self.make_dataset(), set()
        for step in range(_N_BATCHES):
            for row in _rows(self.batch(dataset, step)):
                trained |= _grams(row)
        for row in self.held_out_rows():
            both = _grams(row) & trained
            assert not both, f"tokens {list(next(iter(both)))} are held out, and trained on, too" + (
                self._see("dataset.held_out() if hasattr(dataset, 'held_out') else None")
            )

    @pytest.mark.parametrize(
        "place",
        [{"step": -1}, {"rank": 2, "world_size": 2}, {"rank": -1, "world_size": 2}, {"world_size": 0}],
        ids=lambda place: "-".join(f"{name}={value}" for name, value in place.items()),
    )
    def test_a_place_that_is_none_is_refused(self, place: dict[str, int]) -> None:
        try:
            self.make_dataset().batch(**{"seed": self.seed, "step": 0, **place})
        except ArgumentError:
            return
        except Exception as error:
            raise AssertionError(
                f"batch({place}): {type(error).__name__}: {error}; raise ArgumentError"
            ) from error
        raise AssertionError(f"batch({place}) makes a batch; raise ArgumentError, with what is allowed")

    def _copy(self, dataset: Any, step: int) -> Any:
        return copied(self.batch(dataset, step))

    def _seconds(self, dataset: Any, step: int) -> float:
        begun = time.process_time()
        self.batch(dataset, step)
        return time.process_time() - begun

    def _see(self, *lines: str) -> str:
        made = with_places(self.how("make_dataset()"))
        return self.see(
            "import functools",
            "import helix_kernel",
            "from helix_data.testing.places import place",
            "from helix_kernel.randomness import batch_of",
            f"dataset, seed = {made}, {self.seed}",
            "batch = lambda step, **ranks: batch_of(dataset, seed=seed, step=step, **ranks)",
            *lines,
        )


def _tensors(batch: Any) -> list[Any]:
    return [leaf for leaf in leaves(batch) if hasattr(leaf, "zero_")]


def _form(batch: Any) -> list[str]:
    return [f"{tensor.dtype} {tuple(tensor.shape)}" for tensor in _tensors(batch)]


def _rows(batch: Any) -> list[list[Any]]:
    rows: list[list[Any]] = next(leaves(batch)).tolist()
    return rows


def _grams(row: list[Any]) -> set[tuple[Any, ...]]:
    """Return what stands in a row, twelve tokens at a time; not what is blank or padding."""
    grams = {tuple(row[start : start + _GRAM]) for start in range(len(row) - _GRAM + 1)}
    return {gram for gram in grams if len(set(gram)) > _GRAM // 2}
