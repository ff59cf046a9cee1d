"""What `helix new` writes builds, lints, type-checks, passes its own tests and trains, untouched."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import attrs
import pytest

from helix_kernel import default_kernel
from helix_kernel.cli.new import new
from helix_kernel.new.names import LONGEST
from helix_kernel.new.template import variants_of

FEW = ("layer", "logger", "scheduling_policy")
ALL = (
    "backend-native",
    "backend-python",
    "backend-triton",
    "callback",
    "command",
    "dataset",
    "layer",
    "loader",
    "logger",
    "loss",
    "memory_tier",
    "metric",
    "modality",
    "op",
    "optimizer",
    "schedule",
    "scheduling_policy",
    "tokenizer",
    "trainer",  # a kind that brings no template
)
USED_IN_CONFIGS = (
    "backend",
    "callback",
    "dataset",
    "layer",
    "loader",
    "logger",
    "loss",
    "metric",
    "optimizer",
    "schedule",
    "tokenizer",
)

INTERPRETED = "backend-triton"
ON_A_CPU = {"TRITON_INTERPRET": "1"}  # not for the others: what is installed serves, and it serves slowly
HELIX = ("-m", "helix_kernel.cli")
PYTEST_EACH = """
import sys, pytest  # in one process, which imports torch once
codes = [pytest.main(["-q", "-p", "no:cacheprovider", "--helix-provider", name]) for name in sys.argv[1:]]
sys.exit(max(codes))
"""


@attrs.frozen
class Made:
    """Distributions that were written, built and installed into a folder of their own."""

    folder: Path
    projects: dict[str, Path]

    def run(self, *command: object, **environment: str) -> str:
        """Run a program that finds what was installed; returns what it printed."""
        inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        done = subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=self.folder,
            env={**inherited, "PYTHONPATH": str(self.folder / "site"), **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def provider(self, case: str) -> str:
        project = tomllib.loads((self.projects[case] / "pyproject.toml").read_text())["project"]
        return str(project["name"])


def made(folder: Path, cases: tuple[str, ...], names: dict[str, str]) -> Made:
    projects = {}
    for case in cases:
        kind, _, variant = case.partition("-")
        projects[case] = folder / case
        new(
            kind,
            names[case],
            provider=f"helix-{names[case]}"[:LONGEST].strip("-"),
            out=str(projects[case]),
            kernel=variant or None,
        )
    found = Made(folder, projects)
    pip = ("-m", "pip", "--disable-pip-version-check")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # where cmake and ninja are
    build = (*pip, "wheel", "--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", "dist")
    found.run(*build, *(f"./{case}" for case in cases), PATH=path)
    wheels = sorted((folder / "dist").glob("*.whl"))
    assert len(wheels) == len(cases)
    found.run(*pip, "install", "--no-deps", "--no-index", "--target", "site", *wheels)
    return found


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((FEW, "short"), id="few"),
        pytest.param((ALL, "long"), id="all", marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
    ],
)
def distributions(request, tmp_path_factory):
    """A few by short names, and all kinds by the longest: how long a name is changes no verdict of a tool."""
    cases, length = request.param
    plain = {case: f"my-{case}".replace("_", "-") for case in cases}
    long = {case: name.ljust(LONGEST, "x") for case, name in plain.items()}
    return made(tmp_path_factory.mktemp("new"), cases, long if length == "long" else plain)


def test_every_kind_that_has_a_template_is_among_all():
    kinds = default_kernel().registry.kinds.values()
    known = {f"{kind.name}-{variant}" for kind in kinds for variant in variants_of(kind)}
    known |= {kind.name for kind in kinds if kind.template and not variants_of(kind)}
    assert known == set(ALL) - {"trainer"}


def test_ruff_finds_nothing(distributions):
    distributions.run("-m", "ruff", "check", "--no-cache", *distributions.projects, PYTHONPATH="")
    distributions.run("-m", "ruff", "format", "--no-cache", "--check", *distributions.projects, PYTHONPATH="")


@pytest.mark.slow  # it reads all of torch first
def test_strict_mypy_finds_nothing(distributions):
    settings = distributions.folder / "mypy.toml"
    tables = [(project / "pyproject.toml").read_text() for project in distributions.projects.values()]
    shared = {line for text in tables for line in tomllib.loads(text)["tool"]["mypy"] if line != "overrides"}
    assert shared == {"strict", "files"}
    overrides = "".join(text.partition("[[tool.mypy.overrides]]")[2] and _overrides(text) for text in tables)
    settings.write_text(f"[tool.mypy]\nstrict = true\n{overrides}")
    folders = [f"{case}/{part}" for case in distributions.projects for part in ("src", "tests")]
    distributions.run("-m", "mypy", "--config-file", settings, *folders, PYTHONPATH="")


def test_its_own_tests_pass(distributions):
    one = next(iter(distributions.projects.values())) / "pyproject.toml"
    tests = [f"{case}/tests" for case in distributions.projects]
    printed = distributions.run(
        "-m", "pytest", "-q", "-c", one, "--rootdir", ".", "-p", "no:cacheprovider", *tests
    )
    assert " passed" in printed
    assert " skipped" not in printed


def test_pytest_finds_the_suites_of_what_it_declares(distributions):
    few = len(distributions.projects) == len(FEW)
    cases = [case for case in distributions.projects if not (few and case == "layer")]  # see its own tests
    interpreted = [case for case in cases if case == INTERPRETED]
    for together, environment in ((interpreted, ON_A_CPU), ([c for c in cases if c != INTERPRETED], {})):
        if together:
            providers = [distributions.provider(case) for case in together]
            printed = distributions.run("-c", PYTEST_EACH, *providers, **environment)
            assert len(re.findall(r"^\d+ passed", printed, re.MULTILINE)) == len(together), printed


def test_its_example_is_a_sound_config(distributions):
    examples = {case: project / "example.toml" for case, project in distributions.projects.items()}
    configs = {case: example for case, example in examples.items() if example.exists()}
    assert {case.partition("-")[0] for case in configs} == {
        case.partition("-")[0] for case in examples if case.partition("-")[0] in USED_IN_CONFIGS
    }
    for config in configs.values():
        assert ": ok" in distributions.run(*HELIX, "config", "check", config)


@pytest.mark.slow
def test_its_example_trains(distributions):
    for case, project in distributions.projects.items():
        if (project / "example.toml").exists():
            smaller = ["trainer.steps=2", "trainer.samples=0", f"trainer.out=runs/{case}", "model.d_model=8"]
            if case == INTERPRETED:  # which takes a second for what a GPU does in a microsecond
                smaller += ["data.batch_size=1", "data.seq_len=8", "data.validation_fraction=0"]
            environment = ON_A_CPU if case == INTERPRETED else {}
            distributions.run(*HELIX, "train", project / "example.toml", *smaller, **environment)
            assert (distributions.folder / "runs" / case / "report.html").exists()


@pytest.mark.slow
def test_what_its_readme_shows_in_python_runs(distributions):
    for project in distributions.projects.values():
        for block in blocks("python", project):
            distributions.run("-c", block)


def test_what_its_readme_shows_of_a_config_is_in_the_example(distributions):
    for case, project in distributions.projects.items():
        for block in blocks("toml", project):
            shown = tomllib.loads(block)
            example = tomllib.loads((project / "example.toml").read_text())
            assert shown
            assert merged(example, shown) == example, case


def test_it_says_in_its_workflow_what_was_run_here(distributions):
    for case, project in distributions.projects.items():
        text = (project / ".github/workflows/ci.yml").read_text()
        steps = re.findall(r"- run: (.*)", text)
        assert steps[1:] == [
            "ruff check .",
            "ruff format --check .",
            "mypy",
            "pytest",
            f"pytest --helix-provider {distributions.provider(case)}",
            "pip wheel --no-deps --wheel-dir dist .",
        ], case
        assert "${{ matrix.python }}" in text


def blocks(language: str, project: Path) -> list[str]:
    """Return what the README shows in a language."""
    return re.findall(rf"```{language}\n(.*?)```", (project / "README.md").read_text(), re.DOTALL)


def merged(table, more):
    """Return a table with another's values in place of its own."""
    both = {key: merged(table.get(key, {}), value) for key, value in more.items() if isinstance(value, dict)}
    return {**table, **more, **both}


def _overrides(text: str) -> str:
    """Return the overrides of mypy that a pyproject.toml has, as they stand there."""
    start = text.index("[[tool.mypy.overrides]]")
    return text[start : text.index("[tool.pytest")]
