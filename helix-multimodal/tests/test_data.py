"""Folders of files as batches of several kinds of data."""

import gzip
import pickle

import numpy as np
import pytest
import torch

from helix_kernel.errors import ArgumentError, DataError
from helix_kernel.modality import Sample
from helix_multimodal.data.cache import ContentCache, key_of
from helix_multimodal.data.file_groups import FileGroups
from helix_multimodal.data.groups import find_groups


class Raw:
    """A modality of bytes, which counts what it loads."""

    dtype = "uint8"
    loaded = 0

    def load(self, source):
        type(self).loaded += 1
        return Sample(arrays={"bytes": np.frombuffer(source.read(), np.uint8)})

    def encode(self, sample):
        return torch.from_numpy(sample.arrays["bytes"].copy())


class Damaged(Raw):
    def load(self, source):
        raise DataError("it is cut short")


@pytest.fixture
def folder(tmp_path):
    """Twelve things with a picture and a text, of which one lacks its sound and two share a text."""
    for number in range(12):
        place = tmp_path / ("birds" if number % 2 else "fish") / f"thing-{number}"
        place.parent.mkdir(exist_ok=True)
        place.with_name(place.name + ".png").write_bytes(bytes([number]) * 5)
        text = "A  Star.\nmore" if number in {3, 4} else f"thing {number}"
        place.with_name(place.name + ".txt").write_text(text if number != 4 else "a star.")
        if number != 7:
            place.with_name(place.name + "_desc.ogg").write_bytes(bytes([100 + number]))
    (tmp_path / "birds" / ".hidden.png").write_bytes(b"no")
    (tmp_path / "fish" / "alone.txt").write_text("no picture")
    return tmp_path


FILES = {"picture": "{name}.png", "text": "{name}.txt", "sound": "{name}_desc.ogg"}


def dataset(folder, **options):
    parts = options.pop("files", FILES)
    return FileGroups(
        **{
            "path": str(folder),
            "files": parts,
            "modalities": {part: Raw() for part in parts},
            "shapes": {"picture": (4,), "text": (12,), "sound": (1,)},
            "optional": ("sound",),
            "batch_size": 2,
            "validation_fraction": 0.25,
            **options,
        }
    )


def test_groups_are_what_names_share(folder):
    groups = find_groups(str(folder), FILES, {}, optional=["sound"])
    assert len(groups) == 12
    assert groups[0].name == "birds/thing-1"
    assert groups[0].read("text") == b"thing 1"
    assert [group.name for group in groups if "sound" not in group.parts] == ["birds/thing-7"]


def test_a_group_needs_every_part_that_is_not_optional(folder):
    assert len(find_groups(str(folder), FILES, {})) == 11


@pytest.mark.parametrize("packed", [False, True])
def test_a_table_gives_a_line_to_each_group(folder, packed):
    text = b"; a comment\nfish/thing-0: Zero: nothing.\nbirds/thing-1:One.\n"
    table = folder / "names"
    table.write_bytes(gzip.compress(text) if packed else text)
    groups = find_groups(str(folder), {"picture": "{name}.png"}, {"words": str(table)})
    assert {group.name: group.read("words") for group in groups} == {
        "birds/thing-1": b"One.",
        "fish/thing-0": b"Zero: nothing.",
    }


def test_a_folder_without_a_whole_group_says_what_it_holds(folder):
    with pytest.raises(DataError, match=r"no group has all of \['a', 'b'\]; found are 12 of a .* 0 of b"):
        find_groups(str(folder), {"a": "{name}.png", "b": "{name}.jpg"}, {})


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="nothing is no folder"):
        find_groups(str(tmp_path / "nothing"), FILES, {})


def test_a_batch_holds_what_the_files_hold(folder):
    data = dataset(folder)
    batch = data.batch(seed=0, step=0)
    assert {part: tuple(given.values.shape) for part, given in batch.inputs.items()} == {
        "picture": (2, 4),
        "text": (2, 12),
        "sound": (2, 1),
    }
    assert batch.inputs["picture"].sizes.tolist() == [[4], [4]]
    numbers = batch.inputs["picture"].values[:, 0].tolist()
    for row, number in enumerate(numbers):
        text = bytes(batch.inputs["text"].values[row].tolist()).rstrip(b"\0")
        assert number in {3, 4} or text == f"thing {number}".encode()
        sound = batch.inputs["sound"]
        assert bool(sound.present[row]) == (number != 7)
        assert number == 7 or int(sound.values[row, 0]) == 100 + number
    assert batch.targets.tolist() == [[0, 0], [1, 1]]


def test_what_is_held_out_is_no_part_of_a_training_batch(folder):
    data = dataset(folder, concept="text")

    def seen(batches):
        return {n for batch in batches for n in batch.inputs["picture"].values[:, 0].tolist()}

    held_out = seen(data.evaluation_batches())
    trained = seen(data.batch(seed=0, step=step) for step in range(40))
    assert held_out
    assert not held_out & trained
    assert ({3, 4} <= trained) != bool({3, 4} & held_out)  # things of one concept go together


def test_an_epoch_visits_every_concept_once_and_no_batch_holds_one_twice(folder):
    data = dataset(folder, concept="text", validation_fraction=0)
    per_epoch = 11 // 2
    for epoch in range(20):
        steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
        numbers = [data.batch(seed=1, step=step).inputs["picture"].values[:, 0].tolist() for step in steps]
        flat = [3 if number == 4 else number for pair in numbers for number in pair]
        assert len(flat) == len(set(flat)) == 10


def test_classes_are_folders_or_the_beginnings_of_names(folder):
    data = dataset(folder, task="classification")
    assert data.classes == ("birds", "fish")
    batch = data.batch(seed=0, step=0)
    for number, label in zip(
        batch.inputs["picture"].values[:, 0].tolist(), batch.targets.tolist(), strict=True
    ):
        assert data.classes[label] == ("birds" if number % 2 else "fish")
    assert dataset(folder, task="classification", labels="name").classes == ("thing",)


def test_a_caption_is_the_target_with_its_end(folder):
    batch = dataset(folder, task="captioning", target="text").batch(seed=0, step=0)
    text = batch.inputs["text"]
    assert batch.targets.equal(text.values.long())
    assert batch.mask.sum(1).tolist() == [min(12, size + 1) for size in text.sizes[:, 0].tolist()]


def test_decoded_data_are_kept_by_content(folder, tmp_path):
    data = dataset(folder, cache=str(tmp_path / "kept"))
    Raw.loaded = 0
    first = [data.batch(seed=0, step=step) for step in range(4)]
    n_loaded = Raw.loaded
    again = dataset(folder, cache=str(tmp_path / "kept"))
    assert all(
        one.inputs[part].values.equal(other.inputs[part].values)
        for one, other in zip(first, (again.batch(seed=0, step=step) for step in range(4)), strict=True)
        for part in FILES
    )
    assert Raw.loaded == n_loaded > 0
    (folder / "birds" / "thing-1.png").write_bytes(b"other")
    fresh = dataset(folder, cache=str(tmp_path / "kept"), validation_fraction=0)
    pictures = [fresh.batch(seed=0, step=step).inputs["picture"].values for step in range(6)]
    assert any(bytes(row) == b"othe" for picture in pictures for row in picture.tolist())


def test_a_damaged_file_of_the_cache_is_made_again(tmp_path):
    key = key_of(b"data", "how")
    cache = ContentCache(str(tmp_path))
    cache.get(key, lambda: torch.arange(3))
    (file,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    file.write_bytes(file.read_bytes()[:-3])
    assert ContentCache(str(tmp_path)).get(key, lambda: torch.ones(1)).tolist() == [1]


def test_the_cache_keeps_to_its_memory():
    cache = ContentCache(max_bytes=80)
    for number in range(20):
        cache.get(key_of(bytes([number]), ""), lambda: torch.zeros(4, dtype=torch.int64))
    assert cache._n_bytes == sum(tensor.nbytes for tensor in cache._kept.values()) <= 80


def test_bytes_and_the_way_they_are_read_are_told_apart():
    assert key_of(b"ab", "c") != key_of(b"b", "ca")


def test_a_dataset_goes_to_workers(folder):
    data = dataset(folder)
    sent = pickle.loads(pickle.dumps(data))
    assert (
        sent.batch(seed=0, step=3)
        .inputs["text"]
        .values.equal(data.batch(seed=0, step=3).inputs["text"].values)
    )


def test_a_damaged_file_is_named(folder):
    data = dataset(
        folder,
        files={"text": "{name}.txt"},
        modalities={"text": Damaged()},
        shapes={"text": (3,)},
        optional=(),
    )
    with pytest.raises(DataError, match=r"thing-\d+, text: it is cut short"):
        data.batch(seed=0, step=0)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"optional": ("sond",)}, "optional names 'sond'.*'sound'"),
        ({"modalities": {"text": Raw()}}, "modalities lacks 'picture'"),
        ({"files": {"text": "*.txt"}}, "one {name}"),
        ({"task": "captioning"}, "target is missing"),
        ({"optional": ("text",), "concept": "text"}, "concept is 'text', which optional names"),
        ({"tables": {"text": "x"}}, "files.text is given too"),
    ],
)
def test_options_that_do_not_fit_are_refused(folder, options, match):
    with pytest.raises(ArgumentError, match=match):
        dataset(folder, **options)


def test_a_batch_of_more_concepts_than_there_are_is_refused(folder):
    with pytest.raises(DataError, match="a batch of 64 concepts cannot be made of the 9"):
        dataset(folder, batch_size=64)


def test_a_shape_of_other_axes_is_refused(folder):
    with pytest.raises(ArgumentError, match=r"shapes.picture is \(2, 2\).*axes differ"):
        dataset(folder, shapes={"picture": (2, 2), "text": (3,), "sound": (1,)}).batch(seed=0, step=0)
