"""The conformance suite of loaders: what every loader must do, whoever wrote it.

Subclass `LoaderSuite`, give it a loader, and pytest runs the rest::

    class TestPrefetch(LoaderSuite):
        def make_loader(self, dataset, *, rank=0, world_size=1):
            return Prefetch(dataset=dataset, seed=self.seed, rank=rank, world_size=world_size)
"""

from __future__ import annotations

import gc
import importlib
import itertools
import multiprocessing
import pickle
import random
import threading
import time
from typing import Any

import attrs
import pytest

from helix_kernel.randomness import batch_of
from helix_kernel.testing.plain_state import copied, same
from helix_kernel.testing.suite import Suite

_GRACE_SECONDS = 10.0


@attrs.frozen(kw_only=True)
class Drawn:
    """A dataset whose batches are drawn from the global generators, each of another length.

    Args:
        fails_at: Number of the batch that cannot be made; -1 for none.
    """

    fails_at: int = -1

    def __attrs_post_init__(self) -> None:
        # Loaded, as by a real dataset's module, before a batch is made: only then are they seeded.
        for name in ("numpy", "torch"):
            importlib.import_module(name)

    def batch(self, *, seed: int, step: int, rank: int = 0, world_size: int = 1) -> dict[str, Any]:
        """Return the place, and (4 + step % 3) numbers of each generator."""
        import numpy as np
        import torch

        if step == self.fails_at:
            raise KeyError("a word that is in no list")
        size = 4 + step % 3
        return {
            "place": torch.tensor([seed, step, rank, world_size]),
            "torch": torch.randn(size),
            "numpy": torch.from_numpy(np.random.normal(size=size)),  # noqa: NPY002 - the global one
            "random": torch.tensor([random.random() for _ in range(size)]),  # noqa: S311 - no secret
        }


class LoaderSuite(Suite):
    """Pytest class of the loader protocol: ``batches(first, last)`` yields those of steps first to last - 1.

    A subclass overrides `make_loader`. A loader may send `Drawn`, the dataset, to processes of its own.

    Attributes:
        seed: Of the order of the examples.
    """

    seed = 3

    def make_loader(self, dataset: Any, *, rank: int = 0, world_size: int = 1) -> Any:
        """Return a new loader of a dataset."""
        return self.build(dataset=dataset, seed=self.seed, rank=rank, world_size=world_size)

    @pytest.mark.parametrize("span", [(0, 6), (5, 6), (4, 4)], ids=lambda span: f"{span[0]}-{span[1]}")
    def test_batches_come_in_order_as_the_dataset_makes_them(self, span: tuple[int, int]) -> None:
        """Drawn from generators seeded by `helix_kernel.randomness.batch_of`, wherever they are made."""
        found = [copied(batch) for batch in self.make_loader(Drawn()).batches(*span)]
        see = self._see(f"[batch['place'] for batch in loader.batches{span}]")
        assert len(found) == span[1] - span[0], (
            f"batches{span} yields {len(found)}, not {span[1] - span[0]}" + see
        )
        for step, batch in enumerate(found, start=span[0]):
            self._assert_is(batch, step, "of the same loader" + see)

    def test_a_batch_depends_on_its_number_alone(self) -> None:
        """Not on what was asked for before, nor on what the process draws meanwhile."""
        loader = self.make_loader(Drawn())
        for first, last in ((0, 3), (7, 9), (1, 4)):
            for step, batch in enumerate(loader.batches(first, last), start=first):
                random.seed(step)
                _draw()
                see = self._see("list(loader.batches(7, 9))", "list(loader.batches(1, 4))")
                self._assert_is(
                    batch, step, f"in batches({first}, {last}), after others were asked for" + see
                )

    def test_each_rank_gets_its_share(self) -> None:
        for rank in (0, 1):
            loader = self.make_loader(Drawn(), rank=rank, world_size=2)
            for step, batch in enumerate(loader.batches(2, 5), start=2):
                see = self._see("[batch['place'] for batch in loader.batches(2, 5)]", rank=rank, world_size=2)
                self._assert_is(batch, step, f"on rank {rank} of 2" + see, rank=rank, world_size=2)

    def test_generators_are_as_they_were(self) -> None:
        loader = self.make_loader(Drawn())
        before = _generators()
        for batch in loader.batches(0, 4):
            changed = [name for name, state in _generators().items() if state != before[name]]
            assert not changed, (
                f"batch {int(batch['place'][1])} leaves the generators of {', '.join(changed)} changed: make "
                "it by helix_kernel.randomness.batch_of, which puts them back"
                + self._see(
                    "torch.get_rng_state().sum()", "next(loader.batches(0, 4))", "torch.get_rng_state().sum()"
                )
            )

    def test_a_batch_is_the_callers_own(self) -> None:
        """It can be written to, and nothing is written into it later."""
        kept = []
        for batch in self.make_loader(Drawn()).batches(0, 6):
            batch["place"] += 100
            kept.append(batch)
        for step, batch in enumerate(kept):
            assert batch["place"].tolist() == [self.seed + 100, step + 100, 100, 101], (
                f"batch {step} holds {batch['place'].tolist()} after the others came: they share its memory"
                + self._see("kept = list(loader.batches(0, 6))", "[batch['place'] for batch in kept]")
            )

    @pytest.mark.parametrize("how", ["closed early", "taken to the end", "never begun"])
    def test_nothing_runs_on(self, how: str) -> None:
        before = _running()
        loader = self.make_loader(Drawn())
        batches = iter(loader.batches(0, 200 if how == "closed early" else 4))
        list(itertools.islice(batches, {"closed early": 3, "never begun": 0}.get(how)))
        if hasattr(batches, "close"):
            batches.close()
        del batches
        gc.collect()
        left = _left_running(before)
        assert not left, (
            f"{', '.join(sorted(left))} still run {_GRACE_SECONDS:g} seconds after batches were {how}: "
            "end what makes batches in a `finally` of the generator"
            + self._see(
                "import multiprocessing, threading",
                "batches = loader.batches(0, 200)",
                "next(batches), next(batches), batches.close()",
                "multiprocessing.active_children(), threading.enumerate()",
            )
        )

    def test_an_error_of_the_dataset_arrives_in_its_place(self) -> None:
        """The batches before it come, and it says which one could not be made, and why."""
        batches, taken = self.make_loader(Drawn(fails_at=1714)).batches(1711, 1720), 0
        see = self._see("list(loader.batches(1711, 1720))", fails_at=1714)
        try:
            for taken, batch in enumerate(batches, start=1):
                self._assert_is(batch, 1710 + taken, "before one that cannot be made" + see)
        except AssertionError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the loader makes of it
            told = _told(error)
        else:
            raise AssertionError("the dataset fails at step 1714, and no error arrives" + see)
        assert taken == 3, f"the dataset fails at step 1714, and the error arrives at {1711 + taken}" + see
        assert "a word that is in no list" in told, f"the error does not say why: {told}" + see
        assert "1714" in told, (
            f"the error does not name the batch, 1714: {told}; raise another from it, or add a note" + see
        )

    def _assert_is(self, batch: Any, step: int, where: str, **share: int) -> None:
        expected = batch_of(Drawn(), seed=self.seed, step=step, **share)
        place = batch["place"].tolist()
        what = [name for name in expected if not same(batch[name], expected[name])]
        assert not what, (
            f"batch {step} is not what helix_kernel.randomness.batch_of makes of the dataset: {what} "
            f"differ; (seed, step, rank, world_size) is {place}, not {expected['place'].tolist()}, {where}"
        )

    def _see(self, *lines: str, fails_at: int = -1, rank: int = 0, world_size: int = 1) -> str:
        given = {"seed": self.seed, "rank": rank, "world_size": world_size}
        make = self.how(f"make_loader(dataset, rank={rank}, world_size={world_size})", **given)
        if self.component is not None:
            make = f"{make[:-1]}, dataset=dataset)"
        return self.see(
            "import helix_kernel, torch",
            "from helix_data.testing.loaders import Drawn",
            f"dataset = Drawn(fails_at={fails_at})",
            f"loader = {make}",
            *lines,
        )


def _draw() -> None:
    import numpy as np
    import torch

    torch.randn(2), np.random.normal(), random.random()  # noqa: NPY002, S311 - as a model's dropout does


def _generators() -> dict[str, bytes]:
    import numpy as np
    import torch

    found = {"random": random.getstate(), "numpy": np.random.get_state()}  # noqa: NPY002 - the global one
    return {name: pickle.dumps(state) for name, state in found.items()} | {
        "torch": bytes(torch.get_rng_state().numpy())
    }


def _running() -> set[str]:
    processes = {f"process {child.name} {child.pid}" for child in multiprocessing.active_children()}
    return processes | {f"thread {thread.name} {thread.ident}" for thread in threading.enumerate()}


def _left_running(before: set[str]) -> set[str]:
    """Return what runs now and did not before, once it had time to end."""
    deadline = time.monotonic() + _GRACE_SECONDS
    while (left := _running() - before) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def _told(error: BaseException | None) -> str:
    """Return what an error, its notes and what it came from say."""
    parts = []
    while error is not None:
        parts += [f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())]
        error = error.__cause__ or error.__context__
    return "; ".join(parts)
