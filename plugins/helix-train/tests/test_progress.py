"""What a person sees of a run: plain lines, or a live line on a terminal."""

from __future__ import annotations

import io

import pytest

from helix_train import progress
from helix_train.progress import Progress, Update

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
    for name in ("NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    return Terminal()


def update(step):
    return Update(step, 2.0, 2.885, 12345.6)


def test_an_update_reads_as_a_person_would_say_it():
    assert str(update(1)) == "loss 2.0000  2.885 bits/byte  12,346 tokens/s"
    assert str(Update(1, 2.0, None, 10.0)) == "loss 2.0000  10 tokens/s"


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

    def test_they_hold_no_control_sequences(self, clock):
        shown = io.StringIO()
        plain = Progress(shown, every=0)
        plain.note("a note [bold] stays as it is")
        plain.begin(step=0, steps=2)
        plain.update(update(1))
        plain.close()
        assert "\x1b" not in shown.getvalue()
        assert shown.getvalue().startswith("a note [bold] stays as it is\n")

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
        assert "7/10" in shown
        assert str(update(7)) in shown

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
