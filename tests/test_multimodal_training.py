"""The example of several kinds of data trains, resumes and is measured, on files that are made up here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helix_kernel import default_kernel
from helix_kernel.modality import Sample

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "docs/examples/multimodal.toml"
STAMPS = Path("/usr/share/tuxpaint/stamps")
SMALL = [
    "model.d_model=16",
    "data.batch_size=6",
    "data.validation_fraction=0.4",
    "trainer.steps=30",
    "trainer.checkpoint_every=15",
    "trainer.samples=0",
    "optimizer.lr=1e-2",
]
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}


def helix(*words: object, cwd: Path) -> str:
    command = [sys.executable, "-m", "helix_kernel.cli", *map(str, words)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def stamps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Squares of four colours and sizes, each with its name, and all but some with a tone."""
    folder = tmp_path_factory.mktemp("stamps")
    images, sounds = (default_kernel().build("modality", {"use": kind}) for kind in ("image", "audio"))
    for number, (name, colour) in enumerate(COLOURS.items()):
        for size in range(4, 10):
            stem = f"{name}-{size}"
            pixels = np.zeros((32, 32, 3), np.uint8)
            pixels[:size, :size] = colour
            images.save(Sample(arrays={"pixels": pixels}), folder / f"{stem}.png")
            (folder / f"{stem}.txt").write_text(f"{name} {size}\n", encoding="utf-8")
            if size != 5:
                times = np.arange(4000) / 8000
                tone = np.sin(2 * np.pi * (200 + 300 * number + 40 * size) * times).astype(np.float32)
                sounds.save(
                    Sample(arrays={"waveform": tone[None] / 2}, rate=8000), folder / f"{stem}_desc_fr.ogg"
                )
    return folder


@pytest.mark.timeout(600)
def test_the_example_trains_and_is_measured(stamps: Path, tmp_path: Path):
    helix("train", EXAMPLE, f"data.path={stamps}", *SMALL, cwd=tmp_path)
    found = json.loads(helix("eval", "runs/multimodal", "--json", cwd=tmp_path))
    assert found["targets"] == 2 * 9
    for parts in ("picture", "speech", "picture_and_speech"):
        for way in (f"{parts}_to_text", f"text_to_{parts}"):
            assert 0 <= found[f"recall_at_1_{way}"] <= found[f"recall_at_10_{way}"] <= 1
    assert found["chance_at_1_picture"] == pytest.approx(1 / 9)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_resumed_run_is_the_same(stamps: Path, tmp_path: Path):
    out = helix("train", EXAMPLE, f"data.path={stamps}", *SMALL, "--verify-resume", "--json", cwd=tmp_path)
    assert json.loads(out.splitlines()[-1])["exact"] is True


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not STAMPS.is_dir(), reason="needs the Debian package tuxpaint-stamps-default")
def test_real_stamps_are_found_more_often_than_by_chance(tmp_path: Path):
    helix("train", EXAMPLE, "trainer.steps=150", "trainer.samples=0", cwd=tmp_path)
    found = json.loads(helix("eval", "runs/multimodal", "--json", cwd=tmp_path))
    assert found["recall_at_10_speech_to_text"] > 1.5 * found["chance_at_10_speech"]
