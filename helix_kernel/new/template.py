"""Templates: folders of files in which ``{{word}}`` stands for a value.

A template's files end in ``.tmpl``, which the written file's name does not have; file names hold
placeholders, too. Two curly brackets around one word, without a space, are a placeholder and nothing else
is, so that the brackets of TOML, C++, GitHub's ``${{ … }}`` and f-strings stay what they are. A word that
has no value is an error.

Beside them lies ``template.toml``: ``requires``, the distributions that the new one needs; ``texts``, more
values, in which placeholders may stand; and ``default_variant``, where folders named
``<template>-<variant>`` lie beside the template. What is written is the common template, the kind's and the
variant's, in this order: of several files of one name the last counts.
"""

from __future__ import annotations

import re
import tomllib
from importlib import resources
from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel.errors import ArgumentError, HelixError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from importlib.resources.abc import Traversable

    from helix_kernel.component import Kind

COMMON = "helix_kernel.new:templates/common"
GENERIC = "helix_kernel.new:templates/component"
SUFFIX = ".tmpl"
_SETTINGS = "template.toml"
_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")


class TemplateError(HelixError):
    """A template is missing, or holds a placeholder that has no value."""


@attrs.frozen(kw_only=True)
class Template:
    """The files of a new distribution, and what is said of them, before values are put in.

    Args:
        files: Texts by path, both with placeholders.
        texts: Further values by placeholder.
        requires: Requirements, with placeholders.
    """

    files: Mapping[str, str]
    texts: Mapping[str, str]
    requires: tuple[str, ...]

    def rendered(self, values: Mapping[str, str]) -> dict[str, str]:
        """Return the files with values in place of placeholders.

        Raises:
            TemplateError: A placeholder has no value.
        """
        values = dict(values)
        requirements = sorted({render(line, values) for line in self.requires})
        values["dependencies"] = "\n".join(f'    "{line}",' for line in requirements)
        values |= {word: render(text, values) for word, text in self.texts.items()}
        return {render(path, values): render(text, values) for path, text in self.files.items()}


def render(text: str, values: Mapping[str, str]) -> str:
    """Put values in place of placeholders.

    Raises:
        TemplateError: A placeholder has no value.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise TemplateError(
                f"a template holds {match[0]}, which has no value; known are {sorted(values)}"
            )
        return values[match[1]]

    return _PLACEHOLDER.sub(value, text)


def template_of(kind: Kind, variant: str | None = None) -> Template:
    """Read the template of a kind; a generic one where the kind brings none.

    Args:
        kind: The kind.
        variant: Which of the kind's variants, such as a backend's ``native``; its default if left out.

    Raises:
        ArgumentError: The kind has no such variant.
        TemplateError: The folder that the kind names is not there.
    """
    where = kind.template or GENERIC
    common, base = _open(COMMON, kind), _open(where, kind)
    folders = [common, base]
    variants = variants_of(kind)
    if variant is not None and variant not in variants:
        allowed = f"one of {tuple(variants)}" if variants else f"nothing: a {kind.name} has one template"
        raise ArgumentError(
            f"--kernel is {variant!r}, allowed is {allowed}.{did_you_mean(variant, variants)}"
        )
    if variants:
        folders.append(variants[variant or _settings(base)["default_variant"]])
    settings = [_settings(folder) for folder in folders]
    return Template(
        files={path: text for folder in folders for path, text in _files(folder)},
        texts={word: text for s in settings for word, text in s.get("texts", {}).items()},
        requires=tuple(line for s in settings for line in s.get("requires", ())),
    )


def variants_of(kind: Kind) -> dict[str, Traversable]:
    """Return the folders of a kind's variants by name: those beside its template."""
    package, _, path = (kind.template or GENERIC).partition(":")
    parent, _, folder = path.rpartition("/")
    beside = resources.files(package).joinpath(parent) if parent else resources.files(package)
    found = {
        f.name.removeprefix(f"{folder}-"): f for f in beside.iterdir() if f.name.startswith(f"{folder}-")
    }
    return dict(sorted(found.items()))


def _open(where: str, kind: Kind) -> Traversable:
    package, _, path = where.partition(":")
    try:
        folder = resources.files(package).joinpath(path)
    except ModuleNotFoundError:
        folder = None
    if folder is None or not folder.is_dir():
        raise TemplateError(
            f"the kind {kind.name} of {kind.provider} names the template {where!r}, which is missing"
        )
    return folder


def _settings(folder: Traversable) -> dict[str, Any]:
    file = folder.joinpath(_SETTINGS)
    return tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _files(folder: Traversable, below: str = "") -> Iterator[tuple[str, str]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        path = f"{below}{entry.name}"
        if entry.is_dir():
            yield from _files(entry, f"{path}/")
        elif path.endswith(SUFFIX):
            yield path.removesuffix(SUFFIX), entry.read_text(encoding="utf-8")
