"""The suite of loggers passes ours, and catches each of these faults."""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar

import pytest

from helix_kernel import Kernel
from helix_kernel.testing.faults import caught_by
from helix_kernel.testing.provider_cases import derive
from helix_train.loggers.csv_file import CsvLogger
from helix_train.testing.loggers import LoggerSuite

END = "test_a_run_ends_in_any_way"
VALUES = "test_any_values_are_taken"
READ = "test_what_is_logged_is_read_again"
RESUMED = "test_a_run_that_resumes_has_each_step_once"


class Table(CsvLogger):
    """Each fault below breaks one thing. What fails leaves no file open."""

    def __del__(self):
        super().finish("failed")


class OpensItsFileAtOnce(Table):
    def __init__(self):
        super().__init__()
        Path(self._file).touch()


class WritesItsNameIntoTheConfig(Table):
    def begin(self, run):
        run.config["logger"] = "table"
        super().begin(run)


class KnowsTwoEnds(Table):
    def finish(self, status):
        {"done": 0, "failed": 1}[status]
        super().finish(status)


class EndsWithItsLastStep(Table):
    def finish(self, status):
        assert self._row["step"] >= 0
        super().finish(status)


class TakesFiniteValuesOnly(Table):
    def log(self, step, values):
        if not all(map(math.isfinite, values.values())):
            raise ValueError("out of range")
        super().log(step, values)


class TakesAtLeastOneValue(Table):
    def log(self, step, values):
        next(iter(values))
        super().log(step, values)


class AddsItsOwnToTheValues(Table):
    def log(self, step, values):
        values["step"] = step
        super().log(step, values)


class KnowsNoWayBack(Table):
    def log(self, step, values):
        if step < self._row.get("step", 0):
            raise ValueError(f"step {step} comes too late")
        super().log(step, values)

    def drop_after(self, step):
        pass


class RoundsItsValues(Table):
    def log(self, step, values):
        super().log(step, {name: float(f"{value:.6g}") for name, value in values.items()})


class TakesTheFirstPartOnly(Table):
    def log(self, step, values):
        if step != self._row.get("step"):
            super().log(step, values)


class GoesOnAfterAll(Table):
    def begin(self, run):
        path = run.out / self._file
        kept = path.read_text() if run.step else ""
        super().begin(run)
        if kept:
            path.write_text(kept)
            self._stream.seek(0, 2)


class BeginsAnew(Table):
    def begin(self, run):
        (run.out / self._file).unlink(missing_ok=True)
        super().begin(run)


class WritesAtTheEnd(Table):
    def begin(self, run):
        super().begin(run)
        self.kept = []

    def log(self, step, values):
        self.kept.append((step, values))

    def finish(self, status):
        for step, values in self.kept:
            super().log(step, values)
        super().finish(status)


class NeverGoesBack(Table):
    def _drop_from(self, step):
        self._row = {}


class SharesItsLastRow(Table):
    rows: ClassVar = {}

    def begin(self, run):
        super().begin(run)
        self.rows.clear()

    def log(self, step, values):
        self.rows.setdefault(step, dict(values))
        super().log(step, self.rows[step])


FAULTS = [
    (OpensItsFileAtOnce, "test_nothing_is_written_before_the_run_begins", r"makes \['metrics.csv'\]"),
    (
        WritesItsNameIntoTheConfig,
        "test_what_it_is_told_of_the_run_stays_as_it_is",
        r"begin\(\) changes run.config, from .*'logger': 'table'",
    ),
    (KnowsTwoEnds, END, r"finish\('interrupted'\) after 2 steps: KeyError"),
    (EndsWithItsLastStep, END, r"finish\('done'\) after 0 steps: KeyError"),
    (TakesFiniteValuesOnly, VALUES, r"log\(1, {'loss': nan}\): ValueError: out of range"),
    (TakesAtLeastOneValue, VALUES, r"log\(1, {}\): StopIteration"),
    (AddsItsOwnToTheValues, VALUES, r"log\(\) changes the values .* to {.*'step': 1}"),
    (
        KnowsNoWayBack,
        "test_a_run_may_resume_and_go_back",
        r"went back from step 5 to 4: ValueError: step 4 comes too late",
    ),
    (RoundsItsValues, READ, r"\(1, 0.3\).*should hold.*0.30000000000000004"),
    (TakesTheFirstPartOnly, "test_a_step_may_be_told_in_parts", "of values of step 2 in two parts"),
    (GoesOnAfterAll, RESUMED, r"\(5, 5.0\).* should hold"),
    (BeginsAnew, RESUMED, r"holds {'loss': \[\(4, 40.0\)\]}"),
    (WritesAtTheEnd, RESUMED, r"killed after step 5 .* holds {'loss': \[\(4, 40.0\)\]}"),
    (NeverGoesBack, "test_a_run_that_goes_back_forgets_what_it_left", r"\(5, 5.0\), \(3, 30.0\)"),
    (NeverGoesBack, "test_what_is_dropped_is_gone_at_once", r"\(5, 5.0\)\]}; it should hold"),
    (SharesItsLastRow, "test_two_runs_at_a_time_do_not_mix", r"the run 'other' of two .*\(1, 1.0\)"),
]


@pytest.mark.parametrize(
    ("fault", "case", "says"), FAULTS, ids=[f"{row[0].__name__}-{row[1][5:]}" for row in FAULTS]
)
def test_a_fault_is_caught_by_the_case_meant_for_it(tmp_path, fault, case, says):
    caught_by(of(fault), case, says, right=of(Table), tmp_path=tmp_path)


def test_a_stand_in_that_is_none_is_told(tmp_path):
    class Remote(Table):
        stand_in = "helix_train.testing.services:gone"

    with pytest.raises(AssertionError, match=r"services:gone', which cannot be imported \(module .*'gone'\)"):
        of(Remote)().test_a_run_ends_in_any_way(tmp_path, "done", 0)


def of(logger):
    return type("Suite", (LoggerSuite,), {"make_logger": lambda self: logger()})


globals().update(
    (f"Test_{name}", suite)
    for name, suite in derive(Kernel(plugins=["helix-train"]), "helix-train").items()
    if name in ("logger-csv", "logger-mlflow", "logger-tensorboard")  # wandb takes a second for each case
)
