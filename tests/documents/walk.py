"""A walk through a page: its blocks, run in order in one folder, as a reader would."""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from contextlib import chdir, redirect_stderr, redirect_stdout
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE, OutputChecker
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

import tomli_w
from documents.blocks import Block, commands

from helix_kernel import catalogue, default_kernel
from helix_kernel.cli import main
from helix_kernel.cli.app import commands as brought_commands
from helix_kernel.cli.app import make_app
from helix_kernel.listing import listing

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parent.parent.parent
PROSE = "It was the best of times, it was the worst of times. "
TOOLS = ("python", "pytest", "ruff", "mypy")
# What a reader's `helix train` has beside what a page shows: a model and a run as small as they come.
SMALL = (
    "model.d_model=8",
    "model.n_layers=1",
    "data.seq_len=16",
    "data.batch_size=2",
    "data.validation_fraction=0.01",
    "trainer.steps=3",
)
# What a part of a config is completed with, option by option.
REST: dict[str, dict[str, object]] = {
    "model": {"use": "language-model", "d_model": 16, "n_layers": 1, "mixer": {"use": "mamba"}},
    "data": {"use": "text-bytes", "paths": ["books/**/*.txt"], "seq_len": 16, "batch_size": 2},
    "loss": {"use": "cross-entropy"},
    "optimizer": {"use": "adamw"},
    "schedule": {"use": "cosine"},
    "trainer": {"steps": 10},
}
# Options of it that would be wrong beside another.
INSTEAD = {"mixer": "pattern", "n_layers": "pattern", "paths": "source"}


class Walk:
    """Runs blocks in a folder that begins with a text, a config of a small model, and the repository's docs.

    Args:
        folder: An empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.home = self.folder = folder
        self._names: dict[str, object] = {"__name__": "page"}
        self._search: list[str] = []
        (folder / "books").mkdir()
        (folder / "books/one.txt").write_text(PROSE * 100)
        (folder / "raw").mkdir()
        with gzip.open(folder / "raw/one.jsonl.gz", "wt") as file:
            file.writelines(json.dumps({"text": f"{n}. {PROSE}"}) + "\n" for n in range(50))
        (folder / "config.toml").write_text(tomli_w.dumps(REST))
        (folder / "docs").symlink_to(ROOT / "docs")

    def run(self, block: Block) -> None:
        """Run a block, or do what its marker leaves to do; raises where it does not do what the page says."""
        if block.marker != "not run" and block.language != "text":
            with chdir(self.folder):
                self._run(block)

    def _run(self, block: Block) -> None:
        if block.path and block.language not in ("sh", "console"):
            self._write(block)
        elif block.language == "toml":
            self._check_config(block.text)
        elif block.language == "python":
            self._run_python(block)
        elif block.language in ("sh", "console"):
            for command, shown in commands(block):
                self._command(command, shown, block)
        else:
            raise AssertionError(f"{block}: nobody knows how to run a block of {block.language!r}")

    def _write(self, block: Block) -> None:
        path = Path(str(block.path))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)

    def _run_python(self, block: Block) -> None:
        # Where something is installed, this process does not know it.
        if self._search or block.marker == "apart":
            done = self._process(["-c", block.text])
            assert done.returncode == 0, f"{block}: {done.stderr}"
        else:
            exec(compile(block.text, str(block), "exec"), self._names)

    def _check_config(self, text: str) -> None:
        own = tomllib.loads(text)
        read = REST if "trainer" in own else ()  # which reads the other sections
        part = {**{section: {} for section in read}, **own}
        rest = [
            f"{section}.{option}={_as_toml(value)}"
            for section in part
            for option, value in REST.get(section, {}).items()
            if _is_missing(option, part[section]) and _same_use(section, part[section])
        ]
        Path("part.toml").write_text(text)
        code, _, error = self._helix("config", "check", "part.toml", *rest)
        assert code == 0, error

    def _command(self, command: str, shown: str, block: Block) -> None:
        words = shlex.split(command, comments=True)
        assignments = [word for word in words if re.match(r"[A-Z_]+=", word)]
        name, *rest = words[len(assignments) :]
        if block.marker == "parsed" and name != "pip":
            self._parse(name, rest)
        elif name == "helix":
            out = self._run_helix(rest, exactly=block.language == "console")
            assert block.language == "sh" or is_shown(out, shown), (
                f"{block}: {command} printed\n{out}\nwhere the page says\n{shown}"
            )
        elif name == "cd":
            self.folder = self.folder / rest[0]
            os.chdir(self.folder)  # for the rest of the block
        elif name == "pip":
            self._install(rest)
        elif name == "make":
            targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
            assert rest[0] in targets, command
        elif name in TOOLS:
            done = self._process(["-m", name, *rest] if name != "python" else rest)
            assert done.returncode == 0, f"{block}: {command}\n{done.stdout}{done.stderr}"
            assert is_shown(done.stdout, shown), f"{command} printed\n{done.stdout}\nnot\n{shown}"
        else:
            raise AssertionError(
                f"{block}: nobody knows how to run {command!r}; mark the block, with a reason"
            )

    def _run_helix(self, words: list[str], *, exactly: bool) -> str:
        target = words.index(">") if ">" in words else len(words)
        small = () if exactly or words[0] != "train" or "--locked" in words else SMALL
        code, out, error = self._helix(*words[:target], *small)
        may_differ = words[:1] == ["diff"] or words[:2] == ["checkpoint", "diff"]
        assert code == 0 or may_differ, f"helix {shlex.join(words)}: {error}"
        if target < len(words):
            Path(words[-1]).write_text(out)
        return out

    def _parse(self, name: str, words: list[str]) -> None:
        """Let the real parser take a command; of a config's assignments, check each too."""
        if name == "torchrun":
            from torch.distributed.run import get_args_parser

            parsed = get_args_parser().parse_args(words)
            assert parsed.training_script == "helix_kernel.cli", words
            name, words = "helix", parsed.training_script_args
        assert name == "helix", f"{name} has no parser here; mark the block as not run, with a reason"
        offered = [component for component in listing()["components"] if component["kind"] == "command"]
        app = make_app(brought_commands(offered))
        app.parse_args(words, exit_on_error=False, print_error=False)
        assignments = [word for word in words if re.match(r"\w+(\.\w+)+=[^(]*$", word)]
        if assignments:
            rest = [f"{s}.{o}={_as_toml(v)}" for s, options in REST.items() for o, v in options.items()]
            Path("whole.toml").write_text("")
            code, _, error = self._helix("config", "check", "whole.toml", *rest, *assignments)
            assert code == 0, error

    def _helix(self, *words: str) -> tuple[int, str, str]:
        if not self._search:
            return _helix_here(words)
        done = self._process(["-m", "helix_kernel.cli", *words])
        return done.returncode, done.stdout, done.stderr

    def _process(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(self._search),
            "HELIX_CACHE_DIR": str(self.home / "cache"),
        }
        return subprocess.run(
            [sys.executable, *words],
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",  # what a model generates need not be text
            check=False,
        )

    def _install(self, words: list[str]) -> None:
        """Install ``-e FOLDER`` as pip would; of others, see that there are such distributions."""
        assert words[0] == "install", words
        if words[1] == "-e":
            self._install_editable(Path(re.sub(r"\[.*\]", "", words[2])))
            return
        for requirement in words[1:]:
            name = re.split(r"[\[<>=~ ]", requirement)[0]
            known = {*catalogue.DISTRIBUTIONS, "helix-kernel"}
            assert not name.startswith("helix-") or name in known, f"{name}: no such distribution"

    def _install_editable(self, project: Path) -> None:
        """Ask the project's build backend for the wheel that `pip install -e` would unpack."""
        backend = tomllib.loads((project / "pyproject.toml").read_text())["build-system"]["build-backend"]
        site = self.home / "site"
        code = f"import {backend} as b; print(b.build_editable({str(self.home)!r}))"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        with zipfile.ZipFile(self.home / done.stdout.splitlines()[-1]) as wheel:
            wheel.extractall(site)
        folders = [line for path in site.glob("*.pth") for line in path.read_text().split()]
        self._search = [str(site), *folders]


def _helix_here(words: Sequence[str]) -> tuple[int, str, str]:
    """Run the `helix` command in this process; bytes that are no text are replaced."""
    streams = [TextIOWrapper(BytesIO(), encoding="utf-8") for _ in range(2)]
    default_kernel.cache_clear()
    with redirect_stdout(streams[0]), redirect_stderr(streams[1]):
        try:
            main(words)
        except SystemExit as exit_info:
            code = int(exit_info.code or 0)
    for stream in streams:
        stream.flush()
    out, error = (stream.buffer.getvalue().decode(errors="replace") for stream in streams)
    return code, out, error


def is_shown(printed: str, shown: str) -> bool:
    """Whether an output is what a page shows, but for numbers, white space, and what ``...`` stands for."""
    return not shown.strip() or OutputChecker().check_output(
        _without_numbers(shown), _without_numbers(printed), ELLIPSIS | NORMALIZE_WHITESPACE
    )


def _without_numbers(text: str) -> str:
    return re.sub(r"\d{4}-\d\d-\d\d \S+|\d+(\.\d+)?(e-?\d+)?( [KM]?i?B\b)?", "#", text)


def _is_missing(option: str, table: dict[str, object]) -> bool:
    return option not in table and INSTEAD.get(option) not in table


def _same_use(section: str, table: dict[str, object]) -> bool:
    return table.get("use") in (None, REST[section].get("use"))


def _as_toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_as_toml(item)}" for key, item in value.items()) + "}"
    return f"'{value}'" if isinstance(value, str) else str(value)
