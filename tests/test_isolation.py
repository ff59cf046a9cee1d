"""Tests do not see what other tests imported."""

from __future__ import annotations

import importlib

import pytest


@pytest.mark.parametrize("content", ["first", "second"])
def test_a_module_of_a_temporary_folder_is_not_that_of_an_earlier_test(tmp_path, monkeypatch, content):
    # A manifest that was left in sys.modules served its provider in every later test of the process.
    (tmp_path / "left_behind.py").write_text(f"content = {content!r}")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert importlib.import_module("left_behind").content == content
