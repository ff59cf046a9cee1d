"""Checkpoints made to harm whoever opens them are refused by one clear error, in bounded time and memory."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parent))
from torture import attacks, hostile
from torture.states import LostError

from helix_kernel.checkpoint import Checkpoint, load
from helix_kernel.checkpoint.convert import convert
from helix_kernel.errors import CheckpointError

TESTS = Path(__file__).parent
HARMLESS = {
    "an empty array has 2**40 shards": "there is nothing of them",
    "an attribute is an array": "it reads as the array's path",
}

ATTACK = """
import sys
import zipfile
from pathlib import Path
from torture import attacks, hostile
hostile.limit_memory()
for index, name in enumerate([*attacks.documents(), *attacks.files()]):
    path = Path(sys.argv[1], str(index), "step")
    path.parent.mkdir()
    attacks.attack(path, name)
    error = hostile.probe(path)
    print(name, type(error).__name__, error, sep="|")
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """How each attack ended, in a process that may take only half a gigabyte more than it has."""
    finished = subprocess.run(
        [sys.executable, "-c", ATTACK, str(tmp_path_factory.mktemp("attacked"))],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    lines = [line.split("|", 2) for line in finished.stdout.splitlines()]
    return {name: (kind, message) for name, kind, message in lines}


@pytest.mark.parametrize("name", [*attacks.documents(), *attacks.files()])
def test_a_checkpoint_that_lies_is_refused_by_one_clear_error(outcomes, name):
    kind, message = outcomes[name]
    if name in HARMLESS:
        assert kind == "NoneType"
    else:
        assert kind == "CheckpointError"
        assert "damaged" in message or "cannot read" in message or "does not fit" in message
        assert len(message) < 6000


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    path = tmp_path_factory.mktemp("hostile") / "step"
    return path, hostile.valid(path)


@pytest.fixture(scope="module")
def compressed(tmp_path_factory):
    path = tmp_path_factory.mktemp("compressed") / "step"
    return path, hostile.valid(path, compressed=True)


@settings(max_examples=250)
@given(chance=st.randoms(use_true_random=False), is_compressed=st.booleans())
def test_no_change_of_a_manifest_that_is_sealed_again_does_harm(victim, compressed, chance, is_compressed):
    path, document = compressed if is_compressed else victim
    hostile.write(path, hostile.mutate(document, chance))
    hostile.probe(path)


@settings(max_examples=40)
@given(chance=st.randoms(use_true_random=False))
def test_no_change_of_a_manifest_of_the_first_form_does_harm(tmp_path_factory, chance):
    path = tmp_path_factory.mktemp("first") / "step"
    shutil.copytree(TESTS / "data/first-form", path)
    hostile.mutate_first_form(path, chance)
    hostile.probe(path)
    shutil.rmtree(path)


@settings(max_examples=100)
@given(content=st.binary(max_size=300))
def test_any_bytes_as_a_manifest_are_refused(victim, content):
    path, _ = victim
    for written in (content, hostile.seal(content + b"}")):
        (path / "manifest.json").write_bytes(written)
        with pytest.raises(CheckpointError, match=r"manifest\.json"):
            Checkpoint.open(path)


def test_a_pack_that_is_a_link_is_followed_and_checked_like_any_other(tmp_path):
    hostile.valid(tmp_path / "linked")
    pack = tmp_path / "linked/data-00000.bin"
    (tmp_path / "blob").write_bytes(pack.read_bytes())
    pack.unlink()
    pack.symlink_to("../blob")
    with Checkpoint.open(tmp_path / "linked") as checkpoint:
        checkpoint.verify()
    (tmp_path / "blob").write_bytes(bytes(pack.stat().st_size))
    with pytest.raises(CheckpointError, match=r"were changed after they were written"):
        load(tmp_path / "linked")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a compressed chunk unfolds to a thousand times its size", r"hold no such array"),
        ("a compressed chunk unfolds to a terabyte", r"too large to be compressed"),
    ],
)
def test_what_would_unfold_to_too_much_is_refused_when_it_is_opened(tmp_path, name, message):
    attacks.attack(tmp_path / "step", name)
    with pytest.raises(CheckpointError, match=message):
        Checkpoint.open(tmp_path / "step")


def test_the_probe_finds_what_takes_too_long(victim, monkeypatch):
    path, document = victim
    hostile.write(path, document)
    monkeypatch.setattr(hostile, "MOST_SECONDS", 0)
    with pytest.raises(LostError, match="it took"):
        hostile.probe(path)


def test_a_zip_file_that_unfolds_to_a_thousand_times_its_size_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("zarr.json", '{"zarr_format":3,"node_type":"group","attributes":{}}')
        file.writestr("x/c/0", bytes(20 * 2**20))
    with pytest.raises(CheckpointError, match=r"claims to hold 2097\d+; allowed are 20 times its size"):
        convert(tmp_path / "bomb.zip", tmp_path / "step")
    assert not (tmp_path / "step").exists()


def test_a_zip_file_that_is_damaged_is_one_clear_error(tmp_path):
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as file:
        file.writestr("zarr.json", '{"zarr_format":3,"node_type":"group","attributes":{}}')
    content = bytearray((tmp_path / "some.zip").read_bytes())
    content[content.index(b"PK\1\2")] ^= 1
    (tmp_path / "some.zip").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"some\.zip is no zip file that can be read: "):
        convert(tmp_path / "some.zip", tmp_path / "step")
