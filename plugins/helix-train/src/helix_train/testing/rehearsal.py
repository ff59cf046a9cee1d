"""Runs of a few steps on tiny data, in which callbacks are watched: for their conformance suite.

::

    run = rehearse(Path("a-new-folder"), MyCallback())
    run.asked, run.losses(), run.saved()
"""

from __future__ import annotations

import functools
import io
import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import helix_train
from helix_kernel import Kernel
from helix_kernel.checkpoint import Checkpoint, CheckpointManager, load
from helix_kernel.config import resolve_document
from helix_kernel.nesting import flatten
from helix_kernel.plugins import Manifest
from helix_kernel.testing.plain_state import same
from helix_train import plugin
from helix_train.callbacks.base import Callback, Verdict
from helix_train.config import TrainerConfig
from helix_train.progress import Progress
from helix_train.resume import Start
from helix_train.testing import tiny
from helix_train.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from helix_kernel import Config
    from helix_train.callbacks.base import Gradients, Run

STEPS = 7
"""Steps of a run; after each it validates, and after every second there is a checkpoint."""

_OPTIONS = {
    "steps": STEPS,
    "device": "cpu",
    "parallel": "none",
    "log_every": 1,
    "validate_every": 1,
    "checkpoint_every": 2,
    "keep": STEPS,
    "measure_speed": False,
    "samples": 0,
}
_TABLE = {
    "kernel": {"backends": ["reference"]},
    "model": {"use": "tiny"},
    "data": {"use": "tiny"},
    "loss": {"use": "cross-entropy"},
    "optimizer": {"use": "adamw", "lr": 0.02},
    "schedule": {"use": "cosine"},
    "trainer": _OPTIONS,
}


class Rehearsal(Trainer):
    """A run that remembers what its callbacks asked for.

    Attributes:
        asked: What was asked for, each with the steps that were done then.
        is_over: Whether it came to its end.
    """

    def __init__(self, options: TrainerConfig) -> None:
        super().__init__(options)
        self.asked: list[tuple[int, str]] = []
        self.is_over = False

    def stop(self, reason: str) -> None:
        """End the run after this step."""
        self.asked.append((self.step, "stop()"))
        super().stop(reason)

    def set_base_rate(self, rate: float) -> None:
        """Let the schedule multiply this learning rate."""
        self.asked.append((self.step, "set_base_rate()"))
        super().set_base_rate(rate)

    def losses(self) -> dict[int, float]:
        """Return the loss of each step that the optimizer took."""
        lines = map(json.loads, (self.out / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
        return {line["step"]: line["loss"] for line in lines if "loss" in line}

    def saved(self) -> dict[str, Any]:
        """Return what the last checkpoint holds, by dotted names."""
        state: Any = load(self._checkpoint, as_torch=True)
        return flatten(state)

    def _find_start(self, resume: bool | str) -> Start | None:  # noqa: FBT001 - the config's own value
        """Return the newest checkpoint; the tiny plugin that made it is not installed, so nobody asks."""
        own = CheckpointManager(Path(self.options.out) / "checkpoints")
        step = own.latest() if resume else None
        if step is None:
            return None
        with Checkpoint.open(own.path(step)) as checkpoint:
            return Start(checkpoint=own.path(step), attributes=dict(checkpoint.attributes))


class Fate(Callback):
    """What befalls a run: it is killed in a step, or rolled back in one, once; steps count from 1."""

    name = "fate"

    def __init__(self, *, kills_in: int = 0, rolls_back_in: int = 0) -> None:
        self._kills_in, self._rolls_back_in = kills_in, rolls_back_in
        self._done = False

    def judge(self, run: Run, gradients: Gradients) -> Verdict:  # noqa: ARG002 - all runs are alike to it
        """Let it come over the run."""
        if gradients.step + 1 == self._kills_in:
            raise KeyboardInterrupt
        rolls_back = gradients.step + 1 == self._rolls_back_in and not self._done
        return Verdict.ROLL_BACK if rolls_back else Verdict.PROCEED

    def rolled_back(self, run: Run) -> None:  # noqa: ARG002 - as above
        """Remember it, so that it comes once."""
        self._done = True

    def state_dict(self) -> dict[str, Any]:
        """Return whether the run was rolled back."""
        return {"done": self._done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` returned; a rollback is never forgotten."""
        self._done = self._done or bool(state["done"])


class Watched:
    """A callback, each of whose answers is looked at, and each of whose failures is told with its moment."""

    def __init__(self, callback: Any) -> None:
        self._callback = callback
        self._run: Any = None

    @property
    def name(self) -> str:
        """The callback's."""
        name: str = self._callback.name
        return name

    def __getattr__(self, moment: str) -> Any:
        """Return the callback's method, watched."""
        method = getattr(self._callback, moment, None)
        assert method is not None, (
            f"{type(self._callback).__name__} has no {moment}(); extend helix_train.callbacks.base.Callback"
        )

        def watched(*given: Any) -> Any:
            if given and isinstance(given[0], Rehearsal):
                self._run = given[0]
            when = f"{moment}() after {self._run.step} steps" if self._run else f"{moment}() before the run"
            try:
                answer = method(*given)
            except Exception as error:
                raise AssertionError(f"{when}: {type(error).__name__}: {error}") from error
            self._look_at(moment, answer, when)
            return answer

        return watched

    def _look_at(self, moment: str, answer: Any, when: str) -> None:
        if moment == "judge":
            assert isinstance(answer, Verdict), (
                f"{when} gives {answer!r}; allowed is a Verdict of helix_train.callbacks.base"
            )
            if answer is not Verdict.PROCEED:
                self._run.asked.append((self._run.step, f"Verdict.{answer.name}"))
        if moment == "state_dict":
            assert isinstance(answer, dict), f"{when} gives {type(answer).__name__}; allowed is dict"
            odd = dict(_not_plain(answer, "state_dict()"))
            assert not odd, (
                f"{when} holds what no checkpoint can: {odd}; allowed are tensors, None, bool, int, float "
                "and str, in dicts, lists and tuples"
            )


def rehearse(out: Path, *callbacks: Any, resume: bool = False, **options: Any) -> Rehearsal:
    """Train a tiny model for `STEPS` steps, or until it is killed by its `Fate`.

    Args:
        out: The run's directory.
        callbacks: Of the run, in this order; all but a `Fate` are watched.
        resume: Whether to go on from the last checkpoint in `out`.
        options: Of the trainer, over those of every rehearsal.

    Raises:
        AssertionError: A callback fails, or gives what it may not.
    """
    config = _config()
    with ExitStack() as stack:
        stack.enter_context(config.kernel.backends(["reference"]))
        # Drawing takes longer than all the rest of such a run.
        stack.enter_context(mock.patch("helix_train.reporting.draw_loss_curve", return_value=None))
        stack.enter_context(mock.patch("helix_train.reporting.write_report"))
        run = Rehearsal(
            TrainerConfig(
                config=config,
                callbacks=tuple(one if isinstance(one, Fate) else Watched(one) for one in callbacks),
                **{**_OPTIONS, "out": str(out), "resume": resume, **options},
            )
        )
        try:
            run.fit(Progress(io.StringIO()))
        except KeyboardInterrupt:
            return run
    run.is_over = True
    return run


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of what differs between two flat states, with both values where they are short."""
    for name in sorted(one.keys() | other.keys()):
        if name not in one or name not in other or not same(one[name], other[name]):
            values = [str(state.get(name, "nothing")) for state in (one, other)]
            brief = all(len(value) <= 60 and "\n" not in value for value in values)
            yield f"{name} ({values[0]} and {values[1]})" if brief else name


@functools.cache  # since a config's record reads the source of its components
def _config() -> Config:
    """Return the config of all rehearsals, by a kernel of helix-train and the tiny plugin alone."""
    version = helix_train.__version__
    manifests = [
        Manifest(name="train", provider="helix-train", version=version, module=plugin),
        Manifest(name="tiny", provider="helix-train-tiny", version=version, module=tiny),
    ]
    return resolve_document(_TABLE, kernel=Kernel(found=[], manifests=manifests))


def _not_plain(value: Any, where: str) -> Iterator[tuple[str, str]]:
    """Yield the places, and the types, of what a checkpoint refuses."""
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(key, str):
                yield from _not_plain(item, f"{where}[{key!r}]")
            else:
                yield where, f"a key {key!r}"
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _not_plain(item, f"{where}[{number}]")
    elif not (value is None or isinstance(value, bool | int | float | str) or hasattr(value, "__dlpack__")):
        yield where, type(value).__name__
