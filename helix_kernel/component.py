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
