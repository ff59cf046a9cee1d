"""The conformance suite of loggers: what every logger must do, whoever wrote it.

Subclass `LoggerSuite`, give it a logger, and pytest runs the rest::

    class TestCsvLogger(LoggerSuite):
        def make_logger(self):
            return CsvLogger()
"""

from __future__ import annotations

import contextlib
import importlib
import math
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest

from helix_kernel.testing.suite import Suite, applies_when
from helix_train.loggers.base import NeedsService, ReadsBack, RunInfo, TakesBack

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from helix_train.loggers.base import Logger

_CONFIG: dict[str, Any] = {
    "optimizer": {"lr": 0.1, "betas": [0.9, 0.95], "fused": False},
    "data": {"source": None, "paths": ["ä b"]},
}
_VALUES: dict[str, dict[str, float]] = {
    "nothing": {},
    "nan": {"loss": math.nan},
    "inf": {"loss": math.inf, "gain": -math.inf},
    "large": {"loss": 1e300},
    "integer": {"n": 7},
    "odd names": {"a/b": 1.0, "loss (ä)": 2.0, "x" * 300: 3.0, "a,b": 4.0, 'a"b': 5.0},
}


def _reads_back(suite: LoggerSuite) -> bool:
    return isinstance(suite.make_logger(), ReadsBack)


def _takes_back(suite: LoggerSuite) -> bool:
    return _reads_back(suite) and isinstance(suite.make_logger(), TakesBack)


_where_it_can_be_read = applies_when("loggers that can read back what they wrote", _reads_back)


class LoggerSuite(Suite):
    """Pytest class of the logger protocol (see `helix_train.loggers.base.Logger`).

    A subclass overrides `make_logger`. What is written is read again where the logger has the method of
    `helix_train.loggers.base.ReadsBack`. One that works with a server, or within something that tests have
    not, names a stand-in for it (`helix_train.loggers.base.NeedsService`), or `service` is overridden.
    """

    def make_logger(self) -> Logger:
        """Return a new logger."""
        logger: Logger = self.build()
        return logger

    def service(self, folder: Path) -> AbstractContextManager[object]:
        """Return a context within which the logger can do its work, with its files in a folder."""
        logger = self.make_logger()
        if not isinstance(logger, NeedsService):
            return contextlib.nullcontext()
        context: AbstractContextManager[object] = _imported(logger.stand_in)(folder)
        return context

    def test_nothing_is_written_before_the_run_begins(self, tmp_path: Path) -> None:
        """A config is built to be checked, too."""
        with contextlib.chdir(tmp_path):
            self.make_logger()
        found = sorted(path.name for path in tmp_path.rglob("*"))
        assert not found, f"making a logger makes {found}; wait for begin()" + self.see(
            "import helix_kernel", self.how("make_logger()")
        )

    def test_what_it_is_told_of_the_run_stays_as_it_is(self, tmp_path: Path) -> None:
        """Other loggers are told the same."""
        run = _info(tmp_path)
        with self.service(tmp_path):
            logger = self.make_logger()
            logger.begin(run)
            logger.finish("done")
        for name, told, kept in (
            ("config", run.config, _CONFIG),
            ("environment", run.environment, {"torch": "2"}),
        ):
            assert told == kept, f"begin() changes run.{name}, from {kept} to {told}" + self._see(
                f"run.{name}"
            )

    @pytest.mark.parametrize("status", ["done", "failed", "interrupted"])
    @pytest.mark.parametrize("n_steps", [0, 2])
    def test_a_run_ends_in_any_way(self, tmp_path: Path, status: Any, n_steps: int) -> None:
        with self.service(tmp_path):
            logger = self._begun(tmp_path)
            for step in range(1, n_steps + 1):
                logger.log(step, {"loss": 1.0})
            with self._told(f"finish({status!r}) after {n_steps} steps", f"logger.finish({status!r})"):
                logger.finish(status)

    @pytest.mark.parametrize("values", list(_VALUES))
    def test_any_values_are_taken(self, tmp_path: Path, values: str) -> None:
        """A loss that is not finite is the very thing to be seen."""
        given = dict(_VALUES[values])
        with (
            self.service(tmp_path),
            self._told(f"log(1, {given})", f"logger.log(1, {given})", "logger.finish('done')"),
        ):
            logger = self._begun(tmp_path)
            logger.log(1, given)
            logger.finish("done")
        assert repr(given) == repr(_VALUES[values]), (
            f"log() changes the values that it is given, from {_VALUES[values]} to {given}: "
            "other loggers are given the same" + self._see("values = {}", "logger.log(1, values)", "values")
        )

    def test_a_run_may_resume_and_go_back(self, tmp_path: Path) -> None:
        what = "a run that was interrupted after step 5, resumed at step 3 and went back from step 5 to 4"
        with self.service(tmp_path), self._told(what):
            self._logged(tmp_path, 5).finish("interrupted")
            second = self._begun(tmp_path, step=3)
            for step in (4, 5):
                second.log(step, {"loss": 1.0})
            if isinstance(second, TakesBack):
                second.drop_after(3)
            second.log(4, {"loss": 2.0})
            second.finish("done")

    @_where_it_can_be_read
    def test_what_is_logged_is_read_again(self, tmp_path: Path) -> None:
        with self.service(tmp_path):
            logger = self._begun(tmp_path)
            logger.log(1, {"loss": 0.1 + 0.2, "rate": -1e-300})
            logger.log(2, {})
            logger.log(3, {"loss": math.nan})
            logger.log(30, {"loss": math.inf})
            logger.finish("done")
            expected = {"loss": {1: 0.1 + 0.2, 3: math.nan, 30: math.inf}, "rate": {1: -1e-300}}
            self._assert_holds(tmp_path, expected, "values of four steps")

    @_where_it_can_be_read
    def test_a_step_may_be_told_in_parts(self, tmp_path: Path) -> None:
        """As the loss first, and what a validation gives afterwards."""
        with self.service(tmp_path):
            logger = self._begun(tmp_path)
            logger.log(1, {"loss": 3.0})
            logger.log(2, {"loss": 2.0})
            logger.log(2, {"validation_loss": 2.5})
            logger.log(3, {"loss": 1.0})
            logger.finish("done")
            expected = {"loss": {1: 3.0, 2: 2.0, 3: 1.0}, "validation_loss": {2: 2.5}}
            self._assert_holds(tmp_path, expected, "values of step 2 in two parts")

    @pytest.mark.parametrize("end", ["interrupted", "killed"])
    @_where_it_can_be_read
    def test_a_run_that_resumes_has_each_step_once(self, tmp_path: Path, end: str) -> None:
        """It resumes at a checkpoint: what was logged of later steps does not count any more."""
        with self.service(tmp_path):
            first = self._logged(tmp_path, 5)
            if end == "interrupted":
                first.finish("interrupted")
            second = self._begun(tmp_path, step=3)
            second.log(4, {"loss": 40.0})
            second.finish("done")
            expected = {"loss": {1: 1.0, 2: 2.0, 3: 3.0, 4: 40.0}}
            self._assert_holds(tmp_path, expected, f"a run that was {end} after step 5 and resumed at step 3")
            if end == "killed":
                first.finish("failed")  # so that no open file is left behind here

    @_where_it_can_be_read
    def test_a_run_that_goes_back_forgets_what_it_left(self, tmp_path: Path) -> None:
        with self.service(tmp_path):
            logger = self._logged(tmp_path, 5)
            logger.log(3, {"loss": 30.0})
            logger.finish("done")
            expected = {"loss": {1: 1.0, 2: 2.0, 3: 30.0}}
            self._assert_holds(tmp_path, expected, "a run that went back from step 5 to log step 3 again")

    @applies_when("loggers that can read back what they wrote, and take it back at once", _takes_back)
    def test_what_is_dropped_is_gone_at_once(self, tmp_path: Path) -> None:
        with self.service(tmp_path):
            logger: Any = self._logged(tmp_path, 5)
            logger.drop_after(3)
            logger.finish("failed")
            expected = {"loss": {1: 1.0, 2: 2.0, 3: 3.0}}
            self._assert_holds(tmp_path, expected, "five steps, of which drop_after(3) drops two")

    @_where_it_can_be_read
    def test_two_runs_at_a_time_do_not_mix(self, tmp_path: Path) -> None:
        with self.service(tmp_path):
            outs = {tmp_path / name: value for name, value in (("one", 1.0), ("other", 2.0))}
            loggers = [(self._begun(out), value) for out, value in outs.items()]
            for step in (1, 2):
                for logger, value in loggers:
                    logger.log(step, {"loss": value})
            for logger, _ in loggers:
                logger.finish("done")
            for out, value in outs.items():
                expected = {"loss": {1: value, 2: value}}
                self._assert_holds(out, expected, f"the run {out.name!r} of two in one process")

    def _begun(self, out: Path, step: int = 0) -> Logger:
        out.mkdir(exist_ok=True)
        logger = self.make_logger()
        logger.begin(_info(out, step))
        return logger

    def _logged(self, out: Path, n_steps: int) -> Logger:
        """Return a logger that has logged steps, each with its number as the loss."""
        logger = self._begun(out)
        for step in range(1, n_steps + 1):
            logger.log(step, {"loss": float(step)})
        return logger

    def _assert_holds(self, out: Path, expected: Mapping[str, Mapping[int, float]], what: str) -> None:
        logger = self.make_logger()
        assert isinstance(logger, ReadsBack)
        points = {name: list(found) for name, found in logger.read_back(_info(out)).items() if found}
        wanted = {name: list(steps.items()) for name, steps in expected.items()}
        assert repr(points) == repr(wanted), (
            f"of {what}, the logger holds {points}; it should hold {wanted}"
            + self._see("# log what is named above, then", f"{self.how('make_logger()')}.read_back(run)")
        )

    @contextlib.contextmanager
    def _told(self, what: str, *lines: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__}: {error}" + self._see(*lines)) from error

    def _see(self, *lines: str) -> str:
        return self.see(
            "import pathlib",
            "import helix_kernel",
            "from math import inf, nan",
            "from helix_train.loggers.base import RunInfo",
            "out = pathlib.Path('a-new-folder')",
            "out.mkdir()",
            "run = RunInfo(out=out, name='run', config={}, environment={}, step=0)",
            f"logger = {self.how('make_logger()')}",
            "logger.begin(run)",
            *lines,
        )


def _imported(stand_in: str) -> Any:
    module, _, function = stand_in.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise AssertionError(
            f"stand_in is {stand_in!r}, which cannot be imported ({error}); name a function that takes a "
            "folder, as 'package.module:function'"
        ) from error


def _info(out: Path, step: int = 0) -> RunInfo:
    config = deepcopy(_CONFIG)
    return RunInfo(out=out, name="run", config=config, environment={"torch": "2"}, step=step)
