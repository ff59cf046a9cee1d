"""The conformance suite of callbacks: what every callback must do, whoever wrote it.

Subclass `CallbackSuite`, give it a callback, and pytest runs the rest::

    class TestEMA(CallbackSuite):
        def make_callback(self):
            return EMA(decay=0.9)
"""

from __future__ import annotations

import contextlib
import tomllib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from helix_kernel import default_kernel
from helix_kernel.config import Config, KernelSettings
from helix_kernel.testing.plain_state import same
from helix_kernel.testing.suite import Suite, applies_when
from helix_train.callbacks.base import Callback
from helix_train.testing.rehearsal import STEPS, Fate, Rehearsal, Watched, differences, rehearse

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_PARTS = ("model.", "optimizer.", "rng.")


def _averages(suite: CallbackSuite) -> bool:
    return type(suite.make_callback()).averaged is not Callback.averaged


class CallbackSuite(Suite):
    """Pytest class of the callback protocol (see `helix_train.callbacks.base.Callback`).

    A subclass overrides `make_callback`. Cases train a tiny model for seven steps, with a validation after
    each and a checkpoint after every second. A callback that changes weights, gradients or random numbers of
    itself, and not by what it may ask of a run, names the case that forbids it in its `expected_failures`.

    Attributes:
        options: Options of the trainer that the runs need besides.
    """

    options: Mapping[str, Any] = MappingProxyType({})

    def make_callback(self) -> Callback:
        """Return a new callback."""
        callback: Callback = self.build()
        return callback

    def test_it_has_a_name_of_its_own(self) -> None:
        """By which a checkpoint finds its state again."""
        name = getattr(self.make_callback(), "name", None)
        assert isinstance(name, str), f"name is {name!r}; allowed is a string"
        assert name, "name is empty"
        assert name != Callback.name, (
            f"name is {name!r}, that of the base class: a checkpoint would take its state for another's; set "
            "the class attribute `name`" + self._see("callback.name")
        )
        again = self.make_callback().name
        assert again == name, f"two of them have the names {name!r} and {again!r}, and one state"

    @applies_when("callbacks that a manifest declares", lambda suite: suite.component is not None)
    def test_a_frozen_config_has_the_same_options(self) -> None:
        """A run's config.toml is what it is resumed from."""
        assert self.component is not None
        kernel = self.kernel or default_kernel()
        given = kernel.resolver.resolve("callback", {"use": self.component.qualified, **self.example})
        config = Config(settings=KernelSettings(), sections={"callback": given}, kernel=kernel)
        frozen = tomllib.loads(config.to_toml())["callback"]
        again = kernel.resolver.resolve("callback", frozen)
        assert given.arguments == again.arguments, (
            f"options {dict(given.arguments)} are read back from a config.toml as {dict(again.arguments)}: "
            "the config class changes what it is given"
            + self.see("import helix_kernel", self.how("make_callback()"), f"# and then by {frozen}")
        )

    def test_nothing_is_written_before_the_run_begins(self, tmp_path: Path) -> None:
        """A config is built to be checked, too."""
        with contextlib.chdir(tmp_path):
            self.make_callback()
        found = sorted(path.name for path in tmp_path.rglob("*"))
        assert not found, f"making a callback makes {found}; wait for begin()" + self._see()

    def test_it_lives_through_a_run(self, tmp_path: Path) -> None:
        """Also one that rolls back; see `helix_train.testing.rehearsal.Watched` for what is looked at."""
        self._rehearsed(tmp_path / "run")
        self._rehearsed(tmp_path / "rolled-back", Fate(rolls_back_in=5))

    def test_a_run_that_is_over_may_be_resumed(self, tmp_path: Path) -> None:
        """It has no steps left: it makes its last validation again, which counts once, and ends."""
        first = self._rehearsed(tmp_path)
        again = self._rehearsed(tmp_path, resume=True, steps=first.step)
        found = list(differences(_state_of(first), _state_of(again)))
        assert not found, (
            f"a run that is over and resumed changes {', '.join(found[:5])} of state_dict(): its last "
            "validation is heard a second time; count it once"
            + self._see(
                "run = rehearse(out, callback, resume=True)", "run.callbacks[0].state_dict()", run=True
            )
        )

    def test_it_may_join_a_run_that_has_begun(self, tmp_path: Path) -> None:
        """The checkpoint has no state of it then, and it begins at a later step."""
        rehearse(tmp_path, Fate(kills_in=4), **self.options)
        self._rehearsed(tmp_path, Fate(), resume=True)

    def test_a_new_one_knows_nothing_of_earlier_runs(self, tmp_path: Path) -> None:
        first, second = (self._rehearsed(tmp_path / name) for name in ("first", "second"))
        self._assert_same(first, second, "a run in the same process before it, with a callback of its own")

    def test_a_run_that_resumes_ends_as_one_that_never_stopped(self, tmp_path: Path) -> None:
        """Killed in a step, it goes on from a checkpoint before it, and takes a step for the second time."""
        whole = self._rehearsed(tmp_path / "whole", Fate())
        broken = self._broken(tmp_path / "broken", 4)
        self._assert_same(whole, broken, "being killed in step 4 and resumed; state_dict() may lack it")

    def test_a_run_that_rolled_back_resumes_as_one_that_never_stopped(self, tmp_path: Path) -> None:
        whole = self._rehearsed(tmp_path / "whole", Fate(rolls_back_in=5))
        broken = self._broken(tmp_path / "broken", STEPS, rolls_back_in=5)
        what = f"being killed in step {STEPS} and resumed, where both rolled back in step 5"
        self._assert_same(whole, broken, what + "; state_dict() may lack it")

    def test_its_state_is_put_back_whole(self, tmp_path: Path) -> None:
        """Into a new one, and again into one that has a state, as where a run rolls back."""
        state = _state_of(self._rehearsed(tmp_path))
        callback = self.make_callback()
        for time in ("a new one", "one that has it already"):
            callback.load_state_dict(state)
            found = callback.state_dict()
            is_back = found.keys() == state.keys() and same(found, state)
            assert is_back, (
                f"load_state_dict() of {state} leaves {time} with state_dict() {found}"
                + self._see("run.callbacks[0].state_dict()", run=True)
            )

    def test_one_that_asks_for_nothing_changes_nothing(self, tmp_path: Path) -> None:
        """Losses, weights, moments and random numbers are those of a run without it.

        What it may ask for are another verdict than to proceed, an end, and another learning rate. Up to
        where it does, losses are the same, too.
        """
        without = rehearse(tmp_path / "without", **self.options)
        with_it = self._rehearsed(tmp_path / "with")
        asked = min(with_it.asked, default=None)
        until = STEPS if asked is None else asked[0]
        losses = [{s: v for s, v in run.losses().items() if s <= until} for run in (without, with_it)]
        found = [f"loss of step {s}" for s in losses[1] if losses[1][s] != losses[0].get(s)]
        if asked is None:
            found += list(differences(_trained(without), _trained(with_it)))
        assert not found, (
            f"without it a run has another {', '.join(found[:5])}, though it asked for nothing; leave "
            "weights, gradients and generators alone, or put them back (helix_train.state.kept_rngs)"
            + self._see("run.asked, run.losses()", run=True)
        )

    @applies_when("callbacks that keep averaged weights", _averages)
    def test_its_average_fits_the_model(self, tmp_path: Path) -> None:
        run = self._rehearsed(tmp_path)
        averaged = run.callbacks[0].averaged()
        if averaged is None:
            return
        own = run.model.state_dict()
        for name, weight in averaged.items():
            assert name in own, f"averaged() has {name!r}, which is no weight of the model: {list(own)}" + (
                self._see("run.callbacks[0].averaged().keys()", run=True)
            )
            assert weight.shape == own[name].shape, (
                f"averaged()[{name!r}] has shape {tuple(weight.shape)}, the weight {tuple(own[name].shape)}"
                + self._see(f"run.callbacks[0].averaged()[{name!r}].shape", run=True)
            )
            assert weight.data_ptr() != own[name].data_ptr(), (
                f"averaged()[{name!r}] is the model's own memory, which goes on training; return a copy"
                + self._see(f"run.callbacks[0].averaged()[{name!r}].data_ptr()", run=True)
            )
            assert bool(weight.isfinite().all()), f"averaged()[{name!r}] is not finite"

    def _rehearsed(self, out: Path, *fate: Fate, resume: bool = False, **options: Any) -> Rehearsal:
        """Return a run with a new callback."""
        try:
            return rehearse(out, self.make_callback(), *fate, resume=resume, **{**self.options, **options})
        except AssertionError as error:
            raise AssertionError(str(error) + self._see(run=True)) from error

    def _broken(self, out: Path, step: int, *, rolls_back_in: int = 0) -> Rehearsal:
        """Return a run that was killed in a step, unless its callback ended it before, and resumed."""
        run = self._rehearsed(out, Fate(kills_in=step, rolls_back_in=rolls_back_in))
        if run.is_over:
            return run
        return self._rehearsed(out, Fate(rolls_back_in=rolls_back_in), resume=True)

    def _assert_same(self, one: Rehearsal, other: Rehearsal, what: str) -> None:
        found = list(differences(one.saved(), other.saved()))
        found += [
            f"loss of step {step}" for step, loss in one.losses().items() if other.losses().get(step) != loss
        ]
        lines = [(run.out / "metrics.jsonl").read_text(encoding="utf-8") for run in (one, other)]
        if not found and lines[0] != lines[1]:
            found = ["values in metrics.jsonl"]
        assert not found, f"a run ends with another {', '.join(found[:5])} after {what}" + self._see(
            "run.saved()", run=True
        )

    def _see(self, *lines: str, run: bool = False) -> str:
        runs = (
            "from helix_train.testing.rehearsal import Fate, rehearse",
            "out = pathlib.Path('a-new-folder')",
            "run = rehearse(out, callback)  # or (out, callback, Fate(kills_in=4)), and then resume=True",
        )
        return self.see(
            "import pathlib",
            "import helix_kernel",
            f"callback = {self.how('make_callback()')}",
            *(runs if run else ()),
            *lines,
        )


def _state_of(run: Rehearsal) -> dict[str, Any]:
    watched = run.callbacks[0]
    assert isinstance(watched, Watched)
    state: dict[str, Any] = watched.state_dict()
    return state


def _trained(run: Rehearsal) -> dict[str, Any]:
    return {name: value for name, value in run.saved().items() if name.startswith(_PARTS)}
