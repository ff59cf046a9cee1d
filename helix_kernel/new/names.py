"""The names of a new distribution: how they follow from one another, and which are free."""

from __future__ import annotations

import keyword
import re
import sys
from difflib import get_close_matches
from importlib import metadata, util
from typing import TYPE_CHECKING

import attrs

from helix_kernel import catalogue
from helix_kernel.discovery import canonical
from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from helix_kernel.registry import Registry

LONGEST = 28
"""Letters of a name, so that the lines of code that hold it do not grow too long."""
_KEBAB = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@attrs.frozen(kw_only=True)
class Names:
    """What a new distribution and its component are called.

    Args:
        name: The component, kebab-case.
        provider: The distribution, kebab-case.
        package: What Python imports.
    """

    name: str
    provider: str
    package: str

    @property
    def module(self) -> str:
        """The module that holds the component, which is also its name where a name must be Python's."""
        return self.name.replace("-", "_")

    @property
    def class_name(self) -> str:
        """The component's class."""
        return "".join(word.capitalize() for word in self.name.split("-"))


def names_of(name: str, provider: str | None = None, package: str | None = None) -> Names:
    """Check the names that were given, and derive the others.

    Args:
        name: The component.
        provider: The distribution; ``helix-<name>`` if left out.
        package: What Python imports; the distribution's name, with underscores, if left out.

    Raises:
        ArgumentError: A name is malformed, or one that Python keeps for itself.
    """
    _check_kebab("NAME", name)
    provider = provider or (name if name.startswith("helix-") else f"helix-{name}")
    _check_kebab("--provider", provider)
    names = Names(name=name, provider=provider, package=package or provider.replace("-", "_"))
    _check_identifier("--package", names.package)
    _check_identifier("NAME", names.module)
    return names


def check_free(names: Names, kind: str, registry: Registry) -> None:
    """Check that nothing that is installed, or known of Helix, has one of the names.

    Raises:
        ArgumentError: Something has; says what, and which names lie near.
    """
    _check_component(names.name, kind, registry)
    if names.provider in catalogue.DISTRIBUTIONS or names.provider == "helix-kernel":
        raise ArgumentError(f"{names.provider} is a distribution of Helix itself: choose another --provider")
    if _installed(names.provider):
        raise ArgumentError(
            f"a distribution {names.provider} {metadata.version(names.provider)} is installed already: "
            f"choose another --provider, or remove it by `pip uninstall {names.provider}`"
        )
    if names.package in sys.stdlib_module_names or util.find_spec(names.package) is not None:
        raise ArgumentError(
            f"a package {names.package!r} can be imported already, which the new one would hide: "
            "choose another --package"
        )


def _check_kebab(where: str, value: str) -> None:
    if not _KEBAB.fullmatch(value):
        near = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", "-", value).strip("-").lower()
        hint = f" Did you mean {near!r}?" if _KEBAB.fullmatch(near) else ""
        raise ArgumentError(
            f"{where} is {value!r}, allowed are lower-case letters, digits and single hyphens, a letter "
            f"first.{hint}"
        )
    if len(value) > LONGEST:
        raise ArgumentError(f"{where} {value!r} has {len(value)} letters, allowed are {LONGEST}")


def _check_identifier(where: str, value: str) -> None:
    if len(value) > LONGEST:
        raise ArgumentError(f"{where} {value!r} has {len(value)} letters, allowed are {LONGEST}")
    if not value.isidentifier() or keyword.iskeyword(value) or value.startswith("__"):
        kept = "a word that Python keeps for itself" if keyword.iskeyword(value) else "no Python identifier"
        raise ArgumentError(f"{where} gives the module {value!r}, which is {kept}: choose another name")


def _check_component(name: str, kind: str, registry: Registry) -> None:
    offered = {known: component for component in registry.components(kind) for known in component.names}
    taken = offered.get(name) or offered.get(name.replace("-", "_"))
    owner = f"{taken.provider} {taken.version}" if taken else catalogue.distribution_of(kind, name)
    if owner is None:
        return
    near = [other for other in get_close_matches(name, offered, n=4) if other != name]
    also = f" Near it there are {', '.join(near)}, too." if near else ""
    raise ArgumentError(f"there is a {kind} {name!r} already, of {owner}: choose another NAME.{also}")


def _installed(provider: str) -> bool:
    try:
        metadata.distribution(canonical(provider))
    except metadata.PackageNotFoundError:
        return False
    return True
