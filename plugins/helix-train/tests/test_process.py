"""A process that others ask after: it runs, it has ended, or nobody here can know."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from helix_train.process import Process, _since

NEEDS_PROC = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system has no /proc")


@pytest.fixture
def child():
    """A process that ends when its input does."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()
    process.stdin.close()


def of(child):
    return attrs.evolve(Process.own(), pid=child.pid, since=None)


def test_the_process_that_asks_runs():
    assert not Process.own().is_gone()


def test_one_that_was_killed_is_gone(child):
    process = of(child)
    assert not process.is_gone()
    child.kill()
    child.wait()
    assert process.is_gone()


def test_of_another_machine_nothing_is_known(child):
    child.kill()
    child.wait()
    assert not attrs.evolve(of(child), host="elsewhere").is_gone()


def test_one_of_another_user_runs(monkeypatch):
    def refuse(pid, signum):
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert not Process.own().is_gone()


def test_a_number_that_no_system_has_is_gone():
    assert attrs.evolve(Process.own(), pid=10**30).is_gone()


@NEEDS_PROC
def test_a_number_that_another_process_was_given_is_gone():
    assert attrs.evolve(Process.own(), since="1").is_gone()


@NEEDS_PROC
def test_one_that_ended_and_whose_parent_does_not_care_is_gone(child):
    recorded = attrs.evolve(of(child), since=_since(child.pid))
    assert not recorded.is_gone()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert recorded.is_gone()
