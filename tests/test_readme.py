"""What README shows works as shown."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str, containing: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)
    (found,) = [text for text in blocks if containing in text]
    return str(found)


@pytest.fixture
def installed_plugin(tmp_path: Path) -> Path:
    """README's plugin, laid out as pip would install it."""
    package = tmp_path / "my_layers"
    package.mkdir()
    (package / "__init__.py").write_text(block("python", "def helix_layers"))
    (package / "ema.py").write_text(block("python", "class EMA"))
    project = tomllib.loads(block("toml", "entry-points"))["project"]
    info = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    ((group, entries),) = project["entry-points"].items()
    lines = [f"{name} = {module}" for name, module in entries.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))
    return tmp_path


def test_the_config_and_the_plugin_train_together(installed_plugin: Path, tmp_path: Path):
    books = tmp_path / "books"
    books.mkdir()
    (books / "one.txt").write_text("It was the best of times, it was the worst of times. " * 60)
    config = tmp_path / "config.toml"
    config.write_text(block("toml", "language-model"))
    small = ["model.d_model=8", "model.n_layers=1", "data.seq_len=16", "data.batch_size=2", "trainer.steps=2"]
    done = helix(
        installed_plugin,
        "train",
        str(config),
        "model.mixer.use=ema",
        "model.mixer.decay=0.95",
        *small,
        "--json",
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["step"] == 2
    frozen = tomllib.loads((tmp_path / "runs/books/config.toml").read_text())
    assert frozen["model"]["mixer"] == {"use": "my-layers:ema", "decay": 0.95}


def test_the_plugin_passes_the_conformance_suites(installed_plugin: Path):
    done = suites(installed_plugin)
    assert done.returncode == 0, done.stdout
    assert re.search(r"\b[2-9]\d passed", done.stdout), done.stdout


def test_the_suites_find_a_plugin_that_looks_ahead(installed_plugin: Path):
    source = installed_plugin / "my_layers/ema.py"
    source.write_text(source.read_text().replace("self.step(x[:, t], state)", "self.step(x[:, -1], state)"))
    done = suites(installed_plugin)
    assert done.returncode == 1
    assert "test_the_future_does_not_change_the_past" in done.stdout


def suites(plugin: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--helix-provider",
        "my-layers",
        "-q",
        "-p",
        "no:cacheprovider",
    ]
    environment = {**os.environ, "PYTHONPATH": str(plugin), "HELIX_CACHE_DIR": str(plugin / "cache")}
    return subprocess.run(command, cwd=plugin, env=environment, capture_output=True, text=True, check=False)


def test_an_option_that_the_plugins_signature_lacks_is_reported(installed_plugin: Path, tmp_path: Path):
    config = tmp_path / "config.toml"
    config.write_text(block("toml", "language-model"))
    done = helix(installed_plugin, "config", "check", str(config), "model.mixer={use='ema', decya=0.9}")
    assert done.returncode == 2
    assert "model.mixer.decya: unknown option. Did you mean 'decay'?" in done.stderr


def helix(plugin: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "helix_kernel.cli", *arguments],
        cwd=plugin,
        env={**os.environ, "PYTHONPATH": str(plugin), "HELIX_CACHE_DIR": str(plugin / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_command_that_readme_shows_exists():
    listed = subprocess.run(
        [sys.executable, "-m", "helix_kernel.cli", "--help"], capture_output=True, text=True, check=True
    ).stdout
    shown = set(re.findall(r"(?:^|`)helix ([a-z]+)", README, flags=re.MULTILINE))
    assert {"train", "eval", "generate", "config", "checkpoint"} <= shown
    assert all(re.search(rf"^  {command} ", listed, flags=re.MULTILINE) for command in shown), shown
