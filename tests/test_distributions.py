"""The distributions as pip sees them: built wheels, and the kernel alone without torch."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECTS = [
    ROOT,
    *sorted(ROOT.glob("plugins/*")),
    ROOT / "helix-cpu",
    ROOT / "helix-cuda",
    ROOT / "helix-topo",
    ROOT / "helix-multimodal",
]

# What a wheel puts where Python looks for files to run as it starts.
START_UP_FILES = {"helix-cpu": {"helix_cpu_transformers.pth"}}


def run(*command: object, **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def built(project: Path, into: Path) -> Path:
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", into)
    run(sys.executable, "-m", "pip", "wheel", *options, project)
    (wheel,) = into.glob("*.whl")
    return wheel


@pytest.mark.timeout(1200)  # helix-cpu is compiled, for three instruction sets
@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
def test_a_wheel_holds_the_package_its_types_and_nothing_else(project: Path, tmp_path: Path):
    declared = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    with zipfile.ZipFile(built(project, tmp_path)) as wheel:
        names = wheel.namelist()
        (info,) = {name.partition("/")[0] for name in names if ".dist-info/" in name}
        metadata = wheel.read(f"{info}/METADATA").decode()
    package = declared["name"].replace("-", "_")
    beside = START_UP_FILES.get(declared["name"], set())
    assert {name.partition("/")[0] for name in names} == {package, info} | beside
    assert f"{package}/py.typed" in names
    # What `helix new` copies holds the tests of what it makes.
    assert not [name for name in names if "/tests/" in name and "/templates/" not in name]
    assert f"Version: {info.split('-')[1].removesuffix('.dist')}" in metadata


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
def test_no_build_requires_torch(project: Path):
    requires = tomllib.loads((project / "pyproject.toml").read_text())["build-system"]["requires"]
    assert not [line for line in requires if line.startswith("torch")]


@pytest.mark.parametrize("project", PROJECTS[1:], ids=lambda path: path.name)
def test_a_plugin_needs_the_kernel_by_a_range(project: Path):
    dependencies = tomllib.loads((project / "pyproject.toml").read_text())["project"]["dependencies"]
    assert "helix-kernel>=0.1,<0.2" in dependencies


# What is imported without being required: what a module does only where it is there, and another name.
BESIDE_REQUIREMENTS = {
    "helix-kernel": {"torch"},
    "helix-train": {"mlflow"},
    "helix-cpu": {"numpy"},
    "helix-multimodal": {"PIL"},
}


def imported_by(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
def test_a_distribution_requires_what_it_imports(project: Path):
    declared = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    package = declared["name"].replace("-", "_")
    extras = declared.get("optional-dependencies", {}).values()
    lines = [*declared["dependencies"], *(line for extra in extras for line in extra)]
    required = {Requirement(line).name.replace("-", "_") for line in lines}
    source = project / "src" / package if (project / "src").is_dir() else project / package
    imported = set().union(*(imported_by(file) for file in source.rglob("*.py")))
    beside = BESIDE_REQUIREMENTS.get(declared["name"], set())
    assert imported - required - beside - {package} - sys.stdlib_module_names == set()


NO_TORCH = "import sys; sys.modules['torch'] = None; from helix_kernel.cli import main; main({arguments!r})"


@pytest.mark.parametrize(
    "arguments", [["plugins"], ["components"], ["config", "schema"], ["doctor"], ["--help"]], ids=" ".join
)
def test_the_kernel_works_alone_where_torch_is_not_installed(arguments: list[str], tmp_path: Path):
    run(
        sys.executable,
        "-c",
        NO_TORCH.format(arguments=arguments),
        HELIX_PLUGINS="",
        HELIX_CACHE_DIR=str(tmp_path),
    )


@pytest.mark.slow
def test_the_kernels_wheel_works_in_an_empty_environment(tmp_path: Path):
    wheel = built(ROOT, tmp_path / "dist")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    run(python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel)
    helix = tmp_path / "venv/bin/helix"
    cache = {"HELIX_CACHE_DIR": str(tmp_path / "cache")}
    assert json.loads(run(helix, "plugins", "--json", **cache)) == {"plugins": [], "failures": []}
    assert json.loads(run(helix, "components", "--json", **cache)) == {"components": []}
    assert "kernel" in json.loads(run(helix, "config", "schema", **cache))["properties"]
    assert "torch" not in run(python, "-m", "pip", "list")
