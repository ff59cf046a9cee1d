"""The logger `csv`: a table that Python's own reader gives back as it was logged."""

from __future__ import annotations

import csv
import math

import pytest

from helix_kernel.errors import DataError
from helix_train.loggers.base import RunInfo
from helix_train.loggers.csv_file import CsvLogger


def begun(out, *, step=0, **options):
    logger = CsvLogger(**options)
    logger.begin(RunInfo(out=out, name="run", config={}, environment={}, step=step))
    return logger


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_is_there_as_soon_as_it_is_logged(tmp_path):
    logger = begun(tmp_path)
    logger.log(3, {"loss": 0.1 + 0.2, "lr": 1e-300})
    assert rows(tmp_path / "metrics.csv") == [{"step": "3", "loss": "0.30000000000000004", "lr": "1e-300"}]
    logger.finish("done")


def test_what_comes_at_one_step_is_one_row(tmp_path):
    logger = begun(tmp_path)
    logger.log(1, {"loss": 1.0})
    logger.log(1, {"validation_loss": 2.0})
    logger.log(1, {"loss": 3.0})
    logger.log(2, {"loss": 4.0})
    logger.finish("done")
    assert rows(tmp_path / "metrics.csv") == [
        {"step": "1", "loss": "3.0", "validation_loss": "2.0"},
        {"step": "2", "loss": "4.0", "validation_loss": ""},
    ]


def test_a_metric_that_comes_later_adds_a_column_to_all_rows(tmp_path):
    logger = begun(tmp_path)
    for step in range(1, 4):
        logger.log(step, {"loss": step})
    logger.log(4, {"speed": 7.0})
    logger.log(5, {"loss": 5, "norm": 1.0, "speed": 8.0})
    logger.finish("done")
    table = rows(tmp_path / "metrics.csv")
    assert [row["loss"] for row in table] == ["1", "2", "3", "", "5"]
    assert [row["speed"] for row in table] == ["", "", "", "7.0", "8.0"]
    assert [row["norm"] for row in table] == ["", "", "", "", "1.0"]
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("name", ["a,b", 'a "quoted" name', "two\nlines", "größer/als %", " "])
def test_names_of_any_characters_come_back_as_they_were(tmp_path, name):
    logger = begun(tmp_path)
    logger.log(1, {name: 1.0})
    logger.log(2, {"later": 2.0})
    logger.finish("done")
    assert [row[name] for row in rows(tmp_path / "metrics.csv")] == ["1.0", ""]


def test_numbers_that_are_not_finite_can_be_read_again(tmp_path):
    logger = begun(tmp_path)
    logger.log(1, {"a": math.nan, "b": math.inf, "c": -math.inf})
    logger.finish("failed")
    (row,) = rows(tmp_path / "metrics.csv")
    assert math.isnan(float(row["a"]))
    assert (float(row["b"]), float(row["c"])) == (math.inf, -math.inf)


class TestGoingOn:
    @pytest.fixture
    def table(self, tmp_path):
        logger = begun(tmp_path)
        for step in (2, 4, 6):
            logger.log(step, {"loss": step})
        logger.finish("interrupted")
        return tmp_path / "metrics.csv"

    def test_rows_of_later_steps_are_dropped(self, table):
        logger = begun(table.parent, step=4)
        assert [row["step"] for row in rows(table)] == ["2", "4"]
        logger.log(6, {"loss": 60, "norm": 1.0})
        logger.finish("done")
        assert [(row["step"], row["loss"], row["norm"]) for row in rows(table)] == [
            ("2", "2", ""),
            ("4", "4", ""),
            ("6", "60", "1.0"),
        ]

    def test_a_run_from_the_beginning_keeps_none(self, table):
        begun(table.parent).finish("done")
        assert rows(table) == []

    def test_a_run_that_goes_back_within_itself_drops_what_it_does_again(self, table):
        logger = begun(table.parent, step=6)
        for step in (8, 10, 6, 8):
            logger.log(step, {"loss": -step})
        logger.finish("done")
        assert [row["loss"] for row in rows(table)] == ["2", "4", "-6", "-8"]

    def test_rows_of_steps_that_were_undone_are_gone_at_once(self, table):
        logger = begun(table.parent, step=6)
        logger.log(8, {"loss": 8.0, "norm": 1.0})
        logger.drop_after(4)
        assert [(row["step"], row["loss"]) for row in rows(table)] == [("2", "2"), ("4", "4")]
        logger.log(4, {"validation_loss": 0.5})
        logger.log(8, {"loss": 80.0})
        logger.finish("done")
        assert [(row["step"], row["loss"], row["validation_loss"]) for row in rows(table)] == [
            ("2", "2", ""),
            ("4", "4", "0.5"),
            ("8", "80.0", ""),
        ]

    def test_a_run_that_goes_back_to_before_its_first_row_has_none(self, table):
        logger = begun(table.parent, step=6)
        logger.drop_after(1)
        logger.log(2, {"loss": 20})
        logger.finish("done")
        assert [row["loss"] for row in rows(table)] == ["20"]

    @pytest.mark.parametrize("cut", [1, 2])
    def test_a_last_row_that_a_kill_cut_short_is_left_out(self, table, cut):
        table.write_bytes(table.read_bytes()[:-cut])
        begun(table.parent, step=6).finish("done")
        assert [row["step"] for row in rows(table)] == ["2", "4"]

    @pytest.mark.parametrize("text", ["", "name,loss\nx,1\n", "step,loss\nx,1\n"])
    def test_what_is_no_table_of_metrics_is_not_overwritten(self, table, text):
        table.write_text(text)
        with pytest.raises(DataError, match=r"metrics\.csv: no table of metrics"):
            begun(table.parent, step=4)
        assert table.read_text() == text


def test_the_file_may_lie_elsewhere(tmp_path):
    begun(tmp_path / "run", file=str(tmp_path / "shared" / "a.csv")).finish("done")
    assert (tmp_path / "shared" / "a.csv").read_text() == "step\n"
