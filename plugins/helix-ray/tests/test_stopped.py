"""A trial that was stopped from outside is not said to be running for ever."""

from __future__ import annotations

import json

import pytest

from helix_ray.stopped import tell_stopped


def test_a_run_that_was_running_was_interrupted_and_all_else_is_kept(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"status": "running", "step": 7, "ended_at": None}))
    tell_stopped(tmp_path)
    told = json.loads((tmp_path / "run.json").read_text())
    assert (told["status"], told["step"]) == ("interrupted", 7)
    assert told["ended_at"] == told["updated_at"]


@pytest.mark.parametrize("text", ['{"status": "failed"}', "[]", "nonsense", "{}"])
def test_a_run_that_ended_itself_and_files_of_others_stay_as_they_are(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    tell_stopped(tmp_path)
    assert (tmp_path / "run.json").read_text() == text


def test_a_run_that_never_began_gets_no_file(tmp_path):
    tell_stopped(tmp_path)
    assert list(tmp_path.iterdir()) == []
