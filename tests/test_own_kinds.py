"""docs/examples: a kind of component that a third party brings, and another that serves it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "docs/examples"
OWNER, USER = EXAMPLES / "own-kind", EXAMPLES / "own-kind-user"


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Both distributions in one folder, as pip would install them."""
    return laid_out(tmp_path_factory.mktemp("site"), OWNER, USER)


def laid_out(folder, *projects):
    for source in projects:
        project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
        package = project["name"].replace("-", "_")
        shutil.copytree(source / "src" / package, folder / package)
        info = folder / f"{package}-{project['version']}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        )
        ((group, entries),) = project["entry-points"].items()
        lines = [f"{name} = {module}" for name, module in entries.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))
    return folder


def ran(folder, *command):
    environment = {**os.environ, "PYTHONPATH": str(folder), "HELIX_CACHE_DIR": str(folder / "cache")}
    arguments = [sys.executable, *command]
    return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def helix(folder, *arguments):
    return ran(folder, "-m", "helix_kernel.cli", *arguments)


def test_the_kind_lists_the_augmentations_of_both(both):
    done = helix(both, "components", "--kind", "augmentation", "--json")
    assert done.returncode == 0, done.stderr
    assert re.findall(r'"name": "([\w-]+)"', done.stdout) == ["mask-bytes", "swap-neighbours"]


def test_a_config_that_uses_both_is_sound_and_faults_in_it_are_told(both):
    config = str(OWNER / "augmented.toml")
    assert helix(both, "config", "check", config).returncode == 0
    wrong = helix(both, "config", "check", config, "data.augmentation.rate=2", "augmentation.use=mask-byte")
    assert wrong.returncode == 2
    assert "data.augmentation.rate: " in wrong.stderr
    assert "Did you mean 'mask-bytes'?" in wrong.stderr


def test_what_the_config_names_is_built_and_trains(both, tmp_path):
    out, config = tmp_path / "run", OWNER / "augmented.toml"
    small = ["trainer.steps=2", f"trainer.out={json.dumps(str(out))}", "data.data.seq_len=16"]
    done = helix(both, "train", str(config), *small, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["step"] == 2
    built = (
        "from helix_kernel import default_kernel, load_config\n"
        f"table = load_config({str(config)!r})['augmentation']\n"
        "print(vars(default_kernel().build('augmentation', table)))"
    )
    assert ran(both, "-c", built).stdout.strip() == "{'rate': 0.2, 'replacement': 0}"


@pytest.mark.parametrize(
    ("provider", "classes"),
    [
        ("umbrella-noise", {"augmentation-swap-neighbours"}),
        pytest.param(
            "acme-augment",
            {"augmentation-mask-bytes.1", "augmentation-mask-bytes.2", "dataset-augmented"},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_suites_run_on_what_a_manifest_declares(both, provider, classes):
    done = ran(both, "-m", "pytest", "--helix-provider", provider, "-v", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout
    assert classes <= set(re.findall(r"::([\w.-]+)::test_\w+\S* PASSED", done.stdout)), done.stdout
    assert "skipped" not in done.stdout


def test_the_suites_find_an_augmentation_that_draws_from_the_process(tmp_path):
    folder = laid_out(tmp_path, OWNER, USER)
    source = folder / "umbrella_noise/swap_neighbours.py"
    source.write_text(source.read_text().replace(", generator=torch.Generator().manual_seed(seed)", ""))
    done = ran(folder, "-m", "pytest", "--helix-provider", "umbrella-noise", "-q", "-p", "no:cacheprovider")
    assert done.returncode == 1
    assert "one seed gives two results" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("project", [OWNER, USER], ids=lambda path: path.name)
def test_the_distributions_own_tests_pass(both, project):
    options = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, "-W", "error", "--rootdir", str(both)]
    done = ran(both, "-m", "pytest", *options, str(project / "tests"))
    assert done.returncode == 0, done.stdout


def test_without_its_owner_the_kinds_hook_is_ignored(tmp_path):
    alone = laid_out(tmp_path, USER)
    done = helix(alone, "plugins", "--json")
    assert done.returncode == 0, done.stderr
    assert "umbrella-noise" in done.stdout
    unknown = helix(alone, "components", "--kind", "augmentation")
    assert unknown.returncode == 2
