"""Virtual environments that hold our wheels and nothing that they do not require.

Two ways to make one:

- `installed`: pip installs the wheels and all that they require, as it would for a user.
- `linked`: pip installs the wheels alone, and each requirement of theirs, and each requirement of those, is a
  link to where it is installed for this Python. That takes seconds where pip takes minutes for torch. What no
  wheel requires is not there, nor is any of our distributions but those that were asked for, so that an
  import that is not declared fails as it would for a user. What pip would choose from an index is not tried:
  the versions are those of constraints.txt, and pip checks that they fit.
"""

import json
import os
import subprocess
import sys
import venv
from collections import Counter
from functools import cache
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from matrix import wheels

_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


class FailedError(Exception):
    """A command in an environment did not do what it should."""


class Environment:
    """A virtual environment in a folder."""

    def __init__(self, folder):
        venv.create(folder, with_pip=False, symlinks=True)
        self.folder = folder
        self.python = folder / "bin/python"
        (self.site,) = folder.glob("lib/python*/site-packages")

    def pip(self, *words):
        return _run([*_PIP, "--python", self.python, *words], cwd=self.folder, environment=_plain())

    def helix(self, *words):
        """Run the `helix` command that the kernel's wheel has put there, and return what it prints."""
        return self.run(self.folder / "bin/helix", *words)

    def run(self, *words):
        return _run(words, cwd=self.folder, environment=_plain(HELIX_CACHE_DIR=str(self.folder / "cache")))

    def json(self, *words):
        return json.loads(self.helix(*words, "--json"))


def installed(folder, own, *, constraints):
    """Make an environment by pip alone."""
    environment = Environment(folder)
    limits = [word for file in constraints for word in ("--constraint", file)]
    environment.pip("install", "--quiet", *limits, *own)
    environment.pip("check")
    return environment


def linked(folder, own, *, besides=()):
    """Make an environment whose third parties are links.

    Args:
        folder: Where.
        own: Wheels of ours.
        besides: More requirements, such as ``pytest``.
    """
    environment = Environment(folder)
    environment.pip("install", "--quiet", "--no-deps", *own)
    needed = [line for wheel in own for line in wheels.requirements(wheel)]
    link(environment.site, [*needed, *map(Requirement, besides)])
    environment.pip("check")
    return environment


def link(site, needed):
    """Link what is required, and what that requires, into a site-packages folder."""
    for distribution in closure(needed):
        for place in _places(distribution):
            target = site / place
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(distribution.locate_file(place))


def closure(needed):
    """Return the installed distributions that requirements name, and those that these require."""
    found, seen, todo = {}, set(), list(needed)
    while todo:
        line = todo.pop()
        name, extras = canonicalize_name(line.name), frozenset(line.extras) or {""}
        if name in wheels.PROJECTS or (name, frozenset(extras)) in seen:
            continue
        seen.add((name, frozenset(extras)))
        found[name] = metadata.distribution(name)
        inner = map(Requirement, found[name].requires or ())
        todo += [
            one
            for one in inner
            if one.marker is None or any(one.marker.evaluate({"extra": e}) for e in extras)
        ]
    return [found[name] for name in sorted(found)]


def _places(distribution):
    """Return what to link of a distribution: whole folders, but single files of those it shares."""
    shared = {top for top, owners in _owners().items() if owners > 1}
    files = [file for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")]
    return {file.parts[0] if file.parts[0] not in shared else str(file) for file in files}


@cache
def _owners():
    tops = ({file.parts[0] for file in distribution.files or ()} for distribution in metadata.distributions())
    return Counter(top for found in tops for top in found)


def _plain(**more):
    """Return the environment variables without what would let other code in."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HELIX_"))}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", **more}


def _run(words, *, cwd, environment):
    words = [str(word) for word in words]
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        told = (done.stderr or done.stdout).strip().splitlines()
        raise FailedError(f"{' '.join(words)[-160:]}: exit code {done.returncode}: {' | '.join(told[-6:])}")
    return done.stdout
