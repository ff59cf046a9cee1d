"""All loggers of a run as one: bad options end it at once, a failing network never does."""

from __future__ import annotations

import attrs
import pytest

from helix_kernel import Kernel
from helix_kernel.build import build
from helix_kernel.errors import HelixError, InputError
from helix_kernel.plugins import Manifest
from helix_train import plugin
from helix_train.loggers import composite
from helix_train.loggers.base import RunInfo
from helix_train.loggers.composite import Loggers
from helix_train.parts import LOGGERS

INFO = RunInfo(out=None, name="run", config={}, environment={})


class Diary:
    """A logger that remembers what it heard, and raises what it is told to."""

    def __init__(self):
        self.heard = []
        self.raises = {}

    def begin(self, run):
        self._hear("begin", run.step)

    def log(self, step, values):
        self._hear("log", step, dict(values))

    def finish(self, status):
        self._hear("finish", status)

    def _hear(self, name, *what):
        if name in self.raises:
            raise self.raises[name]
        self.heard.append((name, *what))


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

    monkeypatch.setattr(composite.time, "monotonic", lambda: Clock.now)
    return Clock


@pytest.fixture
def notes():
    return []


@pytest.fixture
def pair(notes):
    first, second = Diary(), Diary()
    return first, second, Loggers([first, second], notes.append)


def test_every_logger_hears_all_in_order(pair, notes):
    first, second, loggers = pair
    loggers.begin(attrs.evolve(INFO, step=7))
    loggers.log(8, {"loss": 1.0})
    loggers.finish("done")
    assert first.heard == second.heard == [("begin", 7), ("log", 8, {"loss": 1.0}), ("finish", "done")]
    assert notes == []


class TestBeginning:
    def test_wrong_options_end_the_run_also_when_it_resumes(self, pair):
        first, second, loggers = pair
        second.raises["begin"] = InputError("no such project")
        with pytest.raises(InputError, match="no such project") as caught:
            loggers.begin(attrs.evolve(INFO, step=5))
        assert caught.value.__notes__ == ["while beginning trainer.loggers[1] (Diary)"]
        assert first.heard == [("begin", 5), ("finish", "failed")]

    def test_any_other_failure_ends_a_new_run_too(self, pair):
        first, second, loggers = pair
        second.raises["begin"] = ConnectionError("no\nroute")
        with pytest.raises(
            HelixError, match=r"loggers\[1\] \(Diary\) could not begin: ConnectionError: no route"
        ):
            loggers.begin(INFO)
        assert first.heard == [("begin", 0), ("finish", "failed")]

    def test_a_run_that_resumes_goes_on_without_it(self, pair, notes):
        first, second, loggers = pair
        first.raises["begin"] = ConnectionError("no route")
        loggers.begin(attrs.evolve(INFO, step=5))
        loggers.log(6, {})
        loggers.finish("done")
        assert first.heard == []
        assert len(second.heard) == 3
        (note,) = notes
        assert note.startswith("trainer.loggers[0] (Diary) could not begin, and is left out: ConnectionError")


class TestFailing:
    def test_it_costs_one_line_and_no_other_logger(self, pair, notes, clock):
        first, second, loggers = pair
        loggers.begin(INFO)
        first.raises["log"] = OSError(101, "Network is unreachable")
        for step in range(1, 20):
            clock.now += 30
            loggers.log(step, {})
        assert [step for _, step, *_ in second.heard] == list(range(20))
        (note,) = notes
        assert note == (
            "trainer.loggers[0] (Diary) failed at step 1: OSError: [Errno 101] Network is unreachable; "
            "the run goes on, and metrics.jsonl has everything"
        )

    def test_it_is_tried_again_after_a_minute(self, pair, notes, clock):
        first, _, loggers = pair
        loggers.begin(INFO)
        first.raises["log"] = OSError("gone")
        loggers.log(1, {})
        del first.raises["log"]
        clock.now += 59
        loggers.log(2, {})
        clock.now += 1
        loggers.log(3, {})
        loggers.log(4, {})
        assert [heard[1] for heard in first.heard] == [0, 3, 4]
        assert notes[1:] == ["trainer.loggers[0] (Diary) logs again from step 3; it lacks steps from 1 on"]

    def test_one_that_hangs_before_it_fails_takes_a_tenth_of_the_time_at_most(self, pair, clock):
        first, _, loggers = pair
        loggers.begin(INFO)
        tries = []

        def hang(step, values):
            tries.append(step)
            clock.now += 20
            raise TimeoutError

        first.log = hang
        begun = clock.now
        for step in range(1000):
            clock.now += 1
            loggers.log(step, {})
        assert len(tries) > 3
        assert 20 * len(tries) <= 0.1 * (clock.now - begun) + 20

    def test_the_end_is_not_spoilt_either(self, pair, notes):
        first, second, loggers = pair
        loggers.begin(INFO)
        first.raises["finish"] = OSError("gone")
        loggers.finish("interrupted")
        assert second.heard[-1] == ("finish", "interrupted")
        assert notes == [
            "trainer.loggers[0] (Diary) could not finish: OSError: gone; metrics.jsonl has everything"
        ]

    def test_ctrl_c_is_no_failure_of_a_logger(self, pair):
        first, _, loggers = pair
        loggers.begin(INFO)
        first.raises["log"] = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            loggers.log(1, {})


@pytest.mark.parametrize("component", LOGGERS, ids=lambda component: component.name)
def test_the_kernel_builds_every_logger_from_its_name(component):
    kernel = Kernel(
        found=[], manifests=[Manifest(name="train", provider="helix-train", version="0", module=plugin)]
    )
    built = build(kernel.factory("logger", {"use": component.name}).resolved, {})
    assert all(hasattr(built, name) for name in ("begin", "log", "finish"))
    assert component.summary


class TestGoingBack:
    class Table(Diary):
        """A diary that tears pages out."""

        def drop_after(self, step):
            self._hear("drop", step)

    def test_those_that_take_points_back_hear_of_it_at_once(self, notes):
        table, diary = self.Table(), Diary()
        both = Loggers([table, diary], notes.append)
        both.begin(INFO)
        both.log(6, {})
        both.drop_after(4)
        assert [heard[0] for heard in table.heard] == ["begin", "log", "drop"]
        assert table.heard[-1] == ("drop", 4)
        assert [heard[0] for heard in diary.heard] == ["begin", "log"]
        assert notes == []

    def test_one_that_cannot_is_told_of_and_ends_nothing(self, notes, clock):
        table = self.Table()
        table.raises["drop"] = OSError("no table")
        one = Loggers([table], notes.append)
        one.begin(INFO)
        one.drop_after(4)
        assert "failed at step 4: OSError: no table" in notes[0]
