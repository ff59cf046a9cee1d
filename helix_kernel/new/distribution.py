"""A new distribution: what its files hold, and how they come to be on disk, all of them or none."""

from __future__ import annotations

import builtins
import os
import re
import shutil
from typing import TYPE_CHECKING

import attrs
from packaging.version import Version

import helix_kernel
from helix_kernel.errors import ArgumentError
from helix_kernel.new.template import template_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from helix_kernel.component import Kind
    from helix_kernel.new.names import Names

_TAKEN = re.compile(r"^\s*(?:from \S+ import|class) ([\w, ]+)", re.MULTILINE)


@attrs.frozen(kw_only=True)
class Distribution:
    """What is to be written.

    Args:
        kind: Kind of its component.
        names: What it is called.
        variant: Which of the kind's templates, where it has several.
        owner_version: Version of the distribution that brings the kind.
    """

    kind: Kind
    names: Names
    variant: str | None = None
    owner_version: str = helix_kernel.__version__

    def files(self) -> dict[str, str]:
        """Return the files' texts by path.

        Raises:
            ArgumentError: The kind has no such variant, or the component's class would have the name of one
                that the template needs.
            TemplateError: The template is missing or faulty.
        """
        template = template_of(self.kind, self.variant)
        _check_class_name(self.names.class_name, template.files)
        return template.rendered(self._values())

    def _values(self) -> dict[str, str]:
        owner = f"{self.kind.provider}{range_of(self.owner_version)}"
        return {
            **attrs.asdict(self.names),
            "module": self.names.module,
            "class_name": self.names.class_name,
            "kind": self.kind.name,
            "kind_words": self.kind.name.replace("_", " "),
            "plural": self.kind.plural,
            "plural_words": self.kind.plural.replace("_", " "),
            "kernel": f"helix-kernel{range_of(helix_kernel.__version__)}",
            "owner": owner,
        }


def range_of(version: str) -> str:
    """Return the versions that are as good as this one, as a requirement writes them: ``>=0.1,<0.2``."""
    parsed = Version(version)
    least = version if parsed.is_prerelease else f"{parsed.major}.{parsed.minor}"
    return f">={least},<{parsed.major + 1}" if parsed.major else f">={least},<0.{parsed.minor + 1}"


def write(files: Mapping[str, str], directory: Path) -> None:
    """Write files into a new directory, which appears once they are all there.

    Raises:
        ArgumentError: The directory is there already, or that in which it is to be is not.
    """
    if directory.exists() or directory.is_symlink():
        raise ArgumentError(f"{directory} is there already, and nothing is overwritten: choose another --out")
    if not directory.parent.is_dir():
        raise ArgumentError(f"{directory.parent} is no directory: make it first, or choose another --out")
    sibling = directory.with_name(f".{directory.name}.{os.getpid()}")
    try:
        for path, text in files.items():
            file = sibling / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        sibling.rename(directory)
    except OSError as error:
        raise ArgumentError(f"{directory} cannot be written: {error}") from error
    finally:
        shutil.rmtree(sibling, ignore_errors=True)


def _check_class_name(name: str, files: Mapping[str, str]) -> None:
    python = "\n".join(text for path, text in files.items() if path.endswith(".py"))
    taken = {word.strip() for line in _TAKEN.findall(python) for word in line.split(",")}
    if name in taken or hasattr(builtins, name):
        raise ArgumentError(
            f"NAME gives the class {name!r}, which its own code needs for something else: choose another NAME"
        )
