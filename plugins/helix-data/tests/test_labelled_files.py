"""Labelled files: which class a file is of, what is read of it, and what is held out."""

from __future__ import annotations

import inspect

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_data.config import LabelledFilesConfig
from helix_data.labelled_files import LabelledFiles
from helix_kernel import Kernel
from helix_kernel.errors import ArgumentError, DataError

N_FILES = {"cat": 10, "dog": 20, "emu": 5}
arguments = st.fixed_dictionaries(
    {"seed": st.integers(0, 2**64 - 1), "step": st.integers(0, 10**9), "world_size": st.integers(1, 4)}
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files that say what they are: a class's number, a file's number, and some more of the class's."""
    folder = tmp_path_factory.mktemp("classes")
    for label, (name, count) in enumerate(N_FILES.items()):
        for number in range(count):
            path = folder / name / ("deep" if number % 2 else "") / f"{number:03}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes([label, number, *[label + 1] * (number % 7)]))
    (folder / "cat/.hidden").write_bytes(b"x")
    (folder / "cat/empty").touch()
    (folder / ".git").mkdir()
    (folder / "README").write_bytes(b"no folder, no class")
    return str(folder)


@given(arguments=arguments)
@settings(max_examples=30, deadline=None)
def test_a_batch_depends_on_its_arguments_alone_at_any_world_size(folder, arguments):
    seed, step, world_size = (arguments[name] for name in ("seed", "step", "world_size"))
    used = LabelledFiles(path=folder, seq_len=5, batch_size=3)
    used.batch(seed=seed ^ 1, step=0)
    ranks = [used.batch(rank=rank, **arguments) for rank in range(world_size)]
    alone = LabelledFiles(path=folder, seq_len=5, batch_size=3 * world_size).batch(seed=seed, step=step)
    for parts, whole in zip(zip(*ranks, strict=True), alone, strict=True):
        assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("seq_len", [1, 4, 20])
def test_a_file_is_its_first_bytes_then_padding_that_the_mask_hides(folder, seq_len):
    inputs, targets, mask = LabelledFiles(path=folder, seq_len=seq_len, batch_size=16).batch(seed=0, step=0)
    assert (inputs.dtype, targets.dtype, mask.dtype) == (torch.int64, torch.int64, torch.bool)
    assert inputs.shape == mask.shape == (16, seq_len)
    for row, label, own in zip(inputs.tolist(), targets.tolist(), mask.tolist(), strict=True):
        number = row[1] if seq_len > 1 else 0
        text = [label, number, *[label + 1] * (number % 7)][:seq_len]
        n_own = len(text) if seq_len > 1 else 1
        assert row == text + [0] * (seq_len - len(text))
        assert own == [True] * n_own + [False] * (seq_len - n_own)


def test_classes_are_numbered_by_name(folder):
    dataset = LabelledFiles(path=folder)
    assert dataset.classes == ("cat", "dog", "emu")
    assert dataset.n_classes == 3


def files(batches):
    return [tuple(row[:2].tolist()) for batch in batches for row in batch.inputs]


def test_an_epoch_visits_every_file_but_those_held_out_once(folder):
    dataset = LabelledFiles(path=folder, seq_len=4, batch_size=8, validation_fraction=0.1)
    held_out = files(dataset.evaluation_batches())
    assert sorted(label for label, _ in held_out) == [0, 1, 1]  # a tenth of each class, rounded down
    everything = {(label, n) for label, count in enumerate(N_FILES.values()) for n in range(count)}
    for epoch in range(2):
        seen = files(dataset.batch(seed=3, step=epoch * 4 + step) for step in range(4))
        assert len(seen) == 32
        assert set(seen) == everything - set(held_out)
    assert files([dataset.batch(seed=3, step=0)]) != files([dataset.batch(seed=3, step=4)])
    assert files([dataset.batch(seed=3, step=0)]) != files([dataset.batch(seed=4, step=0)])


def test_what_is_held_out_does_not_depend_on_sizes(folder):
    first = LabelledFiles(path=folder, seq_len=4, batch_size=2, validation_fraction=0.3)
    second = LabelledFiles(path=folder, seq_len=9, batch_size=5, validation_fraction=0.3)
    assert files(first.evaluation_batches()) == files(second.evaluation_batches())
    assert list(LabelledFiles(path=folder, validation_fraction=0).evaluation_batches()) == []


def test_the_fingerprint_is_of_bytes_and_classes(tmp_path):
    def made(name, **classes):
        for label, text in classes.items():
            (tmp_path / name / label).mkdir(parents=True)
            (tmp_path / name / label / "file").write_bytes(text)
        return LabelledFiles(path=str(tmp_path / name))

    first = made("first", a=b"one", b=b"two")
    assert first.fingerprint == made("copy", a=b"one", b=b"two").fingerprint
    others = [
        made("text", a=b"one", b=b"twO"),
        made("swapped", a=b"two", b=b"one"),
        made("name", a=b"one", c=b"two"),
    ]
    assert len({dataset.fingerprint for dataset in (first, *others)}) == 4
    assert "2 classes, 2 files to train on and 0 held out" in first.describe()
    assert first.fingerprint in first.describe()


def test_a_file_that_changed_is_said(tmp_path):
    for label in "ab":
        (tmp_path / label).mkdir()
        (tmp_path / label / "file").write_bytes(b"text")
    dataset = LabelledFiles(path=str(tmp_path))
    (tmp_path / "a/file").write_bytes(b"more text")
    with pytest.raises(DataError, match="had 4 bytes when the dataset was opened and has 9 now"):
        dataset.batch(seed=0, step=0)


@pytest.mark.parametrize(
    ("inside", "words"),
    [
        (None, "is no folder"),
        ([], "holds 0 folders, and 2 classes are the fewest"),
        (["a/file"], "holds 1 folders, and 2 classes are the fewest"),
        (["a/file", "b/.hidden"], "b: holds no file with anything in it"),
    ],
)
def test_a_folder_without_classes_is_an_error(tmp_path, inside, words):
    for name in inside or ():
        (tmp_path / "data" / name).parent.mkdir(parents=True)
        (tmp_path / "data" / name).write_bytes(b"text")
    if inside == []:
        (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match=words):
        LabelledFiles(path=str(tmp_path / "data"))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"seed": -1}, "seed is -1, allowed is >= 0"),
        ({"step": -1}, "step is -1, allowed is >= 0"),
        ({"rank": 1}, "rank is 1, allowed is >= 0 and < world_size=1"),
        ({"world_size": 0}, "world_size is 0, allowed is >= 1"),
    ],
)
def test_wrong_arguments_of_batch_are_said(folder, wrong, words):
    with pytest.raises(ArgumentError, match=words):
        LabelledFiles(path=folder).batch(**{"seed": 0, "step": 0, **wrong})


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"seq_len": 0}, "seq_len is 0, allowed is >= 1"),
        ({"batch_size": 0}, "batch_size is 0, allowed is >= 1"),
        ({"validation_fraction": 1.0}, "validation_fraction is 1.0, allowed is >= 0 and < 1"),
    ],
)
@pytest.mark.parametrize("target", [LabelledFiles, LabelledFilesConfig])
def test_wrong_arguments_are_said_by_dataset_and_config(target, folder, wrong, words):
    with pytest.raises(ArgumentError, match=words):
        target(path=folder, **wrong)


def test_the_kernel_builds_it_by_name(folder):
    kernel = Kernel(plugins=["helix-data"])
    assert kernel.build("dataset", {"use": "labelled-files", "path": folder}).n_classes == 3


def test_config_and_dataset_take_the_same_options():
    fields = {
        field.name: inspect.Parameter.empty if field.default is attrs.NOTHING else field.default
        for field in attrs.fields(LabelledFilesConfig)
    }
    assert fields == {n: p.default for n, p in inspect.signature(LabelledFiles).parameters.items()}
