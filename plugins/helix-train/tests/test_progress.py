"""What a person sees of a run: plain lines, or a live line on a terminal."""

from __future__ import annotations

import io
import math
import re

import pytest
from rich.console import Console

from helix_train import progress
from helix_train.live_display import LiveDisplay, sparkline
from helix_train.progress import Course, Progress, Update

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 0.0

    monkeypatch.setattr(progress.time, "monotonic", lambda: Clock.now)
    return Clock


@pytest.fixture
def terminal(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    return Terminal()


FULL = Update(2900, 5.5, 7.9348, 123456.7, rate=2.95e-4, norm=0.8123, data_wait=0.021, mfu=0.413)
HELD_OUT = "2.9143 bits per byte held out"


def update(step):
    return Update(step, 2.0, 2.885, 12345.6)


def test_an_update_reads_as_a_person_would_say_it():
    assert str(update(1)) == "loss 2.0000  2.885 bits/byte  12,346 tokens/s"
    assert str(Update(1, 2.0, None, 10.0)) == "loss 2.0000  10 tokens/s"
    assert str(FULL) == (
        "loss 5.5000  7.935 bits/byte  123,457 tokens/s  lr 2.95e-04  grad norm 0.812  data wait 2%  mfu 41%"
    )


def plain(shown):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)


def run(shown):
    shown.begin(step=0, steps=10)
    shown.update(update(10))
    shown.close()


class TestPlainLines:
    @pytest.mark.parametrize(
        ("step", "seconds", "eta"),
        [(10, 5, "0:00:45"), (50, 50, "0:00:50"), (1, 60, "1:39:00"), (100, 70, "0:00:00")],
    )
    def test_the_time_left_is_that_of_the_steps_left(self, clock, step, seconds, eta):
        shown = io.StringIO()
        plain = Progress(shown)
        plain.begin(step=0, steps=100)
        clock.now += seconds
        plain.update(update(step))
        assert shown.getvalue() == f"step {step}/100  {update(step)}  ETA {eta}\n"

    def test_after_a_resume_only_the_new_steps_count(self, clock):
        shown = io.StringIO()
        plain = Progress(shown)
        plain.begin(step=80, steps=100)
        clock.now += 10
        plain.update(update(90))
        assert "ETA 0:00:10" in shown.getvalue()

    def test_they_come_at_most_so_often_but_the_last_always(self, clock):
        shown = io.StringIO()
        plain = Progress(shown, every=5.0)
        plain.begin(step=0, steps=12)
        for step in range(1, 13):
            clock.now += 1
            plain.update(update(step))
        steps = [line.split()[1] for line in shown.getvalue().splitlines()]
        assert steps == ["1/12", "6/12", "11/12", "12/12"]

    def test_a_validation_that_takes_long_shows_how_far_it_is(self, clock):
        shown = io.StringIO()
        plain = Progress(shown, every=5.0)
        plain.begin(step=3, steps=6)
        for done in range(4):
            clock.now += 2
            plain.validating(done, 4 if done < 3 else None)
        assert shown.getvalue().splitlines() == [
            "step 3: measuring what is held out: 0 of 4 batches",
            "step 3: measuring what is held out: 3 batches",
        ]

    def test_they_hold_no_control_sequences(self, clock):
        shown = io.StringIO()
        plain = Progress(shown, every=0)
        plain.note("a note [bold] stays as it is")
        plain.begin(step=0, steps=2)
        plain.update(update(1))
        plain.close()
        assert "\x1b" not in shown.getvalue()
        assert shown.getvalue().startswith("a note [bold] stays as it is\n")

    def test_a_run_that_goes_back_is_counted_from_there(self, clock):
        shown = io.StringIO()
        plain = Progress(shown, every=0)
        plain.begin(step=50, steps=100)
        for step in (60, 40, 50):
            clock.now += 10
            plain.update(update(step))
        etas = [line.rpartition("ETA ")[2] for line in shown.getvalue().splitlines()]
        assert etas == ["0:00:40", "?", "0:02:30"]

    def test_what_was_held_out_has_a_line_of_its_own(self):
        shown = io.StringIO()
        Progress(shown).evaluated(20, HELD_OUT)
        assert shown.getvalue() == f"step 20: {HELD_OUT}\n"

    @pytest.mark.parametrize(
        ("last", "told"),
        [
            (10, "done: step 10/10 after 0:01:00, 12 s a step; loss 2.0000; {} at step 7\n"),
            (7, "stopped: step 7/10 after 0:01:00, 30 s a step; loss 2.0000; {} at step 7\n"),
        ],
    )
    def test_the_last_line_says_what_the_run_came_to(self, clock, last, told):
        shown = io.StringIO()
        plain = Progress(shown, every=1000)
        plain.begin(step=5, steps=10)
        plain.update(update(6))
        plain.evaluated(7, HELD_OUT)
        plain.update(update(last))
        clock.now += 60
        before = len(shown.getvalue())
        plain.close()
        plain.close()
        assert shown.getvalue()[before:] == told.format(HELD_OUT)

    def test_short_steps_are_told_in_milliseconds(self, clock):
        course = Course()
        course.begin(step=0, steps=10)
        course.go_on(update(10))
        clock.now += 0.0123
        assert "1.23 ms a step" in course.summary()

    def test_a_run_that_never_got_going_comes_to_nothing(self):
        shown = io.StringIO()
        plain = Progress(shown)
        plain.begin(step=0, steps=10)
        plain.close()
        assert shown.getvalue() == ""

    @pytest.mark.parametrize(
        "environment", [{"TERM": "dumb"}, {"TERM": "unknown"}, {"TTY_INTERACTIVE": "0"}], ids=str
    )
    def test_a_terminal_that_cannot_move_its_cursor_has_them_too(self, terminal, monkeypatch, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        run(Progress(terminal))
        assert "\x1b" not in terminal.getvalue()
        assert terminal.getvalue().startswith("step 10/10  loss 2.0000")

    def test_a_pipe_has_them_though_colours_are_forced(self, monkeypatch):
        monkeypatch.setenv("FORCE_COLOR", "1")
        shown = io.StringIO()
        run(Progress(shown))
        assert "\x1b" not in shown.getvalue()

    def test_results_go_to_another_stream(self, capsys):
        Progress().note("hello")
        assert capsys.readouterr() == ("", "hello\n")


class TestTerminal:
    def test_a_live_line_shows_steps_speed_and_loss(self, terminal):
        live = Progress(terminal)
        live.begin(step=3, steps=10)
        live.update(update(7))
        live.close()
        shown = terminal.getvalue()
        assert "7/10" in plain(shown)
        for text in ("loss 2.0000", "2.885 bits/byte", "12,346 tokens/s", "70%"):
            assert text in plain(shown)

    def test_the_cursor_comes_back(self, terminal):
        live = Progress(terminal)
        live.begin(step=0, steps=10)
        assert HIDE_CURSOR in terminal.getvalue()
        assert SHOW_CURSOR not in terminal.getvalue()
        live.close()
        assert terminal.getvalue().rindex(SHOW_CURSOR) > terminal.getvalue().rindex(HIDE_CURSOR)

    def test_notes_stay_whole_and_as_they_are(self, terminal):
        live = Progress(terminal)
        text = "[red]" + "word " * 60 + "end"
        live.note(text)
        live.close()
        assert text in terminal.getvalue()

    def test_closing_before_the_beginning_is_no_error(self, terminal):
        Progress(terminal).close()

    def test_without_colours_there_are_none(self, terminal, monkeypatch):
        monkeypatch.setenv("NO_COLOR", "1")
        run(Progress(terminal))
        styles = re.findall(r"\x1b\[([0-9;]*)m", terminal.getvalue())
        codes = {int(code) for style in styles for code in style.split(";") if code}
        assert not [code for code in codes if 30 <= code <= 49 or code >= 90]

    def test_with_colours_there_are_some(self, terminal):
        run(Progress(terminal))
        assert re.search(r"\x1b\[[0-9;]*3[0-9]", terminal.getvalue())

    def test_the_last_line_says_what_the_run_came_to(self, terminal):
        run(Progress(terminal))
        assert plain(terminal.getvalue()).rstrip().splitlines()[-1].startswith("done: step 10/10 after ")


class TestDisplay:
    """What is drawn at a width, as text."""

    @pytest.fixture
    def course(self, clock):
        course = Course()
        course.begin(step=0, steps=12000)
        clock.now += 4000
        for step in range(30):
            course.go_on(Update(step, 10.0 - step / 10, None, 1.0))
        course.go_on(FULL)
        return course

    def drawn(self, course, width, **options):
        console = Console(width=width, file=io.StringIO(), record=True, force_terminal=True, **options)
        console.print(LiveDisplay(console, course))
        return console.export_text().splitlines()

    @pytest.mark.parametrize("held_out", ["", f"{HELD_OUT} at step 2800"], ids=["without", "with-held-out"])
    @pytest.mark.parametrize("width", [20, 40, 80, 120, 200])
    def test_it_has_three_lines_that_fit(self, course, width, held_out):
        course.held_out = held_out
        lines = self.drawn(course, width)
        assert len(lines) == 3
        assert max(map(len, lines)) <= width

    def test_eighty_columns_hold_everything_but_the_curve(self, course):
        course.held_out = f"{HELD_OUT} at step 2800"
        bar, learnt, rates = self.drawn(course, 80)
        assert re.fullmatch(r"step 2900/12000 ━+[╸╺]━+ 24% 1:06:40 ETA 3:29:12", bar)
        assert learnt == "loss 5.5000   7.935 bits/byte   2.9143 bits per byte held out at step 2800"
        assert rates == "123,457 tokens/s   lr 2.95e-04   grad norm 0.812   data wait 2%   mfu 41%"

    def test_wide_ones_have_the_curve_of_the_last_losses(self, course):
        _, learnt, _ = self.drawn(course, 120)
        assert learnt.startswith("loss 5.5000   7.935 bits/byte   ")
        assert len(learnt.split()[-1]) == 16
        assert learnt.endswith("▁")

    def test_the_least_wanted_is_left_out_where_it_is_narrow(self, course):
        course.held_out = f"{HELD_OUT} at step 2800"
        _, learnt, rates = self.drawn(course, 40)
        assert learnt == "loss 5.5000   7.935 bits/byte"
        assert rates.startswith("123,457 tokens/s   lr 2.95e-04")

    def test_before_the_first_step_it_says_so(self, clock):
        course = Course()
        course.begin(step=0, steps=10)
        bar, told = self.drawn(course, 80)
        assert bar.startswith("step 0/10")
        assert bar.endswith("0% 0:00:00 ETA ?")
        assert told == "the first step is under way"

    def test_a_terminal_without_unicode_gets_none(self, course):
        class Ascii(io.StringIO):
            encoding = "ascii"

        file = Ascii()
        console = Console(width=100, file=file, force_terminal=True, color_system=None)
        console.print(LiveDisplay(console, course))
        assert file.getvalue().isascii()


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], "▁▂▃▄▅▆▇█"),
        ([3, 3, 3], "▁▁▁"),
        ([1, math.nan, 0, math.inf], "█ ▁ "),
        ([math.nan], " "),
    ],
)
def test_a_sparkline_reaches_from_the_least_to_the_greatest(values, shown):
    assert sparkline(values) == shown
