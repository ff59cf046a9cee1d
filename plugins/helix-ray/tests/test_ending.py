"""A signal to the driver becomes a request that workers heed; nothing of it is left behind."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from helix_kernel.errors import HelixError
from helix_ray.ending import EndedRunError, fit_until_asked, heeding, request_in


@pytest.fixture
def request_file(tmp_path):
    return request_in(tmp_path / "run")


def trained(request_file, *, seconds=30):
    """Train as a worker would: until it is told to end."""
    told = []
    ended = threading.Event()

    def interrupt(signum):
        told.append(signum)
        ended.set()

    with heeding(request_file, interrupt) as asked:
        ended.wait(seconds)
        return told, asked.is_set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_to_the_driver_ends_the_workers_run(request_file, number):
    before = signal.getsignal(number)

    def fit():
        signal.raise_signal(number)  # Python runs the handler in the main thread
        return trained(request_file)

    assert fit_until_asked(fit, request_file) == ([number], True)
    assert signal.getsignal(number) == before
    assert not request_file.exists()


def test_without_a_signal_nobody_is_interrupted_and_an_old_request_counts_no_more(request_file):
    request_file.parent.mkdir()
    request_file.write_text(str(int(signal.SIGINT)))
    assert fit_until_asked(lambda: trained(request_file, seconds=0.5), request_file) == ([], False)


def test_a_second_ctrl_c_does_not_wait(request_file):
    over = threading.Event()

    def fit():
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.5)
        over.wait(30)

    with pytest.raises(KeyboardInterrupt):
        fit_until_asked(fit, request_file)
    over.set()
    assert not request_file.exists()


def test_what_a_run_raises_comes_out_even_if_it_says_that_it_took_too_long(request_file):
    def fit():
        raise TimeoutError("too long")

    with pytest.raises(TimeoutError, match="too long"):
        fit_until_asked(fit, request_file)


def test_outside_the_main_thread_no_signal_is_caught(request_file):
    found = []
    thread = threading.Thread(target=lambda: found.append(fit_until_asked(lambda: 7, request_file)))
    thread.start()
    thread.join()
    assert found == [7]


def test_the_exit_code_is_that_of_the_signal_and_the_message_says_how_to_go_on():
    error = EndedRunError("interrupted after 3 of 8 steps", 130)
    assert isinstance(error, HelixError)
    assert error.exit_code == 130
    assert "trainer.resume=true" in str(error)
