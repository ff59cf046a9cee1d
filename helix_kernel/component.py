"""The two records that everything is described by: a component, and the kind that it is of."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_KEBAB = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_OP_NAME = re.compile(r"[a-z][a-z0-9_]*")
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def _check_target(component: Component, attribute: attrs.Attribute[str], value: str | None) -> None:
    if value is not None and not _TARGET.fullmatch(value):
        raise ArgumentError(
            f"component {component.name!r}: {attribute.name}={value!r} is not 'package.module:Attribute'"
        )


def _check_upgrades(component: Component, attribute: attrs.Attribute[Any], value: Mapping[str, str]) -> None:
    if value and not component.reads:
        raise ArgumentError(
            f"component {component.name!r}: upgrades without reads, which says what versions it upgrades from"
        )
    for target in value.values():
        _check_target(component, attribute, target)


def _names(value: Iterable[str]) -> tuple[str, ...]:
    return tuple(value)


@attrs.frozen(kw_only=True)
class Component:
    """Something that a plugin offers by name. Describing one imports nothing.

    Args:
        name: The name used in configs, kebab-case. (An op's name is a Python identifier.)
        target: ``"package.module:Attribute"``, imported when the component is built and then
            called with plain keyword arguments. Any existing class can be a target.
        config: ``"package.module:Class"``, an attrs class in a module that imports no torch.
            Without it the schema is read from the target's signature.
        summary: One line for listings.
        aliases: Other names under which it is found.
        deprecated: Old names, each with the version since which it is deprecated.
        requires: Packages that building needs beyond the distribution's own requirements.
        sections: Sections of a config that it reads beside its own, where it stands in one; a config that
            lacks one of them is wrong.
        reads: Older versions of the distribution whose checkpoints it reads, such as ``">=0.1"``; those
            of its own version line it always does.
        upgrades: By version, what that version changed in a checkpoint: ``"package.module:function"``,
            given some or all of the tensors of such a component by their names below it, returns
            them as the version has them. Only layers whose target is a class have upgrades.
        examples: Tables of options, without `use`, with which the conformance suites build it where
            its defaults are not enough; each is a case of its own.
        expected_failures: Cases of the conformance suite that it is known to fail, each with the reason.
        kind: Set by the kernel.
        provider: Name of the distribution that offers it. Set by the kernel.
        version: Version of that distribution. Set by the kernel.

    Raises:
        ArgumentError: A name or target is malformed.
    """

    name: str = attrs.field()
    target: str = attrs.field(validator=_check_target)
    config: str | None = attrs.field(default=None, validator=_check_target)
    summary: str = ""
    aliases: tuple[str, ...] = attrs.field(default=(), converter=_names)
    deprecated: Mapping[str, str] = attrs.field(factory=dict)
    requires: tuple[str, ...] = attrs.field(default=(), converter=_names)
    sections: tuple[str, ...] = attrs.field(default=(), converter=_names)
    reads: str = ""
    upgrades: Mapping[str, str] = attrs.field(factory=dict, validator=_check_upgrades)
    examples: Sequence[Mapping[str, Any]] = ()
    expected_failures: Mapping[str, str] = attrs.field(factory=dict)
    kind: str = ""
    provider: str = ""
    version: str = ""

    @name.validator
    def _check_name(self, _attribute: attrs.Attribute[str], value: str) -> None:
        if not (_KEBAB.fullmatch(value) or _OP_NAME.fullmatch(value)):
            raise ArgumentError(f"component name {value!r} is not kebab-case (letters, digits, hyphens)")

    @property
    def qualified(self) -> str:
        """The name that no other provider can share: ``provider:name``."""
        return f"{self.provider}:{self.name}"

    @property
    def names(self) -> tuple[str, ...]:
        """Every name under which the component is found, its own first."""
        return (self.name, *self.aliases, *self.deprecated)

    def reads_version(self, saved: str) -> bool:
        """Whether it declares that it reads what an older version of its distribution saved."""
        return reads_version(self.reads, saved, self.version)

    def upgrades_from(self, saved: str) -> list[str]:
        """Return the upgrades that what a version saved needs, the oldest first."""
        from packaging.version import Version

        first, last = Version(saved), Version(self.version or saved)
        steps = sorted((Version(version), upgrade) for version, upgrade in self.upgrades.items())
        return [upgrade for version, upgrade in steps if first < version <= last]


@attrs.frozen(kw_only=True)
class Kind:
    """A kind of component: what it is called, and where a config holds it.

    Args:
        name: Singular, such as ``memory_tier``.
        plural: Such as ``memory_tiers``; plugins offer components by the hook ``helix_<plural>``.
        summary: One line for listings.
        section: The top-level table of a config that holds a component of this kind, if any.
        default: The component that the section means where it has no ``use``.
        context: Arguments that whoever builds the component adds, so that a config need not.
        suite: ``"package.module:Class"``, the conformance suite of such components, if there is one.
        template: ``"package:folder"``, what ``helix new`` makes such a component from, if there is one.
        provider: Distribution that brings the kind. Set by the kernel.
    """

    name: str
    plural: str
    summary: str = ""
    section: str | None = None
    default: str | None = None
    context: tuple[str, ...] = ()
    suite: str | None = None
    template: str | None = None
    provider: str = "helix-kernel"

    @property
    def hook(self) -> str:
        """Name of the hook by which plugins offer components of this kind."""
        return f"helix_{self.plural}"


def reads_version(reads: str, saved: str, installed: str) -> bool:
    """Whether an older version is one of those that a component of the installed one reads.

    Args:
        reads: What `Component.reads` declares.
        saved: Version that saved the checkpoint.
        installed: Version that is to read it.
    """
    if not reads:
        return False
    from packaging.specifiers import SpecifierSet
    from packaging.version import InvalidVersion, Version

    try:
        older = Version(saved) < Version(installed)
    except InvalidVersion:
        return False
    return older and SpecifierSet(reads).contains(saved, prereleases=True)
