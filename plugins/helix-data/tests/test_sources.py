import os
from pydoc_data.topics import topics

import pytest

from helix_data import sources
from helix_data.sources import open_paths, open_source
from helix_kernel.errors import DataError


def text_of(stream):
    return stream.read(0, len(stream)).tobytes()


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    files = {"b.txt": b"B", "a/2.txt": b"2", "a/10.txt": b"10", "a/deep/x.md": b"x", "a/empty.txt": b""}
    hidden = {".hidden.txt": b"?", "a/.git/config": b"?"}
    for name, text in (files | hidden).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("paths", "text"),
    [
        (["b.txt"], b"B"),
        (["."], b"102xB"),
        (["a"], b"102x"),
        (["a/"], b"102x"),
        (["a/*.txt"], b"102"),
        (["**/*.txt"], b"102B"),
        (["**"], b"102xB"),
        (["b.txt", "a"], b"B102x"),
        (["a", "b.txt"], b"102xB"),
        (["b.txt", ".", "./b.txt"], b"B102x"),
        (["~/b.txt"], b"B"),
    ],
)
def test_paths_stand_for_files_in_order(corpus, monkeypatch, paths, text):
    monkeypatch.setenv("HOME", str(corpus))
    assert text_of(open_paths(paths)) == text


def test_absolute_and_relative_paths_give_the_same(corpus):
    assert text_of(open_paths([str(corpus / "a")])) == text_of(open_paths(["a"]))


def test_a_file_whose_name_looks_like_a_glob_is_a_file(corpus):
    (corpus / "[ab].txt").write_bytes(b"brackets")
    assert text_of(open_paths(["[ab].txt"])) == b"brackets"


def test_a_link_to_a_file_does_not_read_it_twice(corpus):
    (corpus / "link.txt").symlink_to(corpus / "b.txt")
    assert text_of(open_paths(["b.txt", "link.txt"])) == b"B"


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (["b.txt", "c.txt"], r"paths\[1\]='c\.txt': does not exist \(seen from /"),
        (["/no/such/file"], r"paths\[0\]='/no/such/file': does not exist$"),
        (["*.pdf"], r"paths\[0\]='\*\.pdf': the glob matches nothing \(seen from /"),
        (["a/empty.txt"], r"paths\[0\]='a/empty\.txt': is an empty file"),
        (["a/empty*"], r"paths\[0\]='a/empty\*': holds no file with anything in it"),
        (["a/.git"], None),
        (["void"], r"paths\[0\]='void': holds no file with anything in it"),
        (["pipe"], r"paths\[0\]='pipe': is not a regular file"),
        (["broken"], r"paths\[0\]='broken': cannot be read: No such file"),
    ],
)
def test_what_is_wrong_with_a_path_is_said(corpus, paths, words):
    (corpus / "void").mkdir()
    os.mkfifo(corpus / "pipe")
    (corpus / "broken").symlink_to(corpus / "nowhere")
    if words is None:
        assert text_of(open_paths(paths)) == b"?", "a hidden folder that is named is read"
        return
    with pytest.raises(DataError, match=words):
        open_paths(paths)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_missing_permission_is_said_of_a_real_file(corpus):
    (corpus / "b.txt").chmod(0)
    with pytest.raises(DataError, match="no permission to read it"):
        open_paths(["b.txt"])


def test_missing_permission_is_said(corpus, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(DataError, match=r"paths\[0\]='b\.txt': no permission to read it"):
        open_paths(["b.txt"])


def test_a_folder_that_cannot_be_listed_is_not_passed_over(corpus, monkeypatch):
    listing = os.scandir

    def refuse(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"paths\[0\]='a': cannot list a/deep: Permission denied"):
        open_paths(["a"])


def test_python_docs_are_the_topics_in_order():
    text = text_of(open_source("python-docs")).decode()
    assert text == "\n".join(topics[name] for name in topics)
    assert len(text) > 100_000


def test_python_stdlib_is_sources_without_tests():
    stream = open_source("python-stdlib")
    names = [str(segment.path) for segment in stream._segments]
    folders = {part for segment in stream._segments for part in segment.path.parent.parts}
    assert any(name.endswith("json/decoder.py") for name in names)
    assert all(name.endswith(".py") for name in names)
    assert not folders & {"test", "tests", "idle_test", "site-packages", "dist-packages"}
    assert len(stream) > 5_000_000


def test_a_python_without_its_sources_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(sources.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(DataError, match="installed without its sources; give paths instead"):
        open_source("python-stdlib")


def test_a_python_without_its_docs_is_said(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pydoc_data.topics", None)
    with pytest.raises(DataError, match="installed without pydoc_data; give paths instead"):
        open_source("python-docs")
