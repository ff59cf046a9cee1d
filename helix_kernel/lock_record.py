"""What serves a config: each component with its distribution, version and the digest of its source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from packaging.requirements import InvalidRequirement, Requirement

from helix_kernel.backends import AUTO
from helix_kernel.config.resolve import components_within
from helix_kernel.discovery import canonical
from helix_kernel.distributions import installed_distribution
from helix_kernel.errors import LockError
from helix_kernel.lock_digests import digest_of_component, digest_of_packages, own_packages
from helix_kernel.sources import find_module

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from helix_kernel.component import Component
    from helix_kernel.config import Config
    from helix_kernel.kernel import Kernel

KERNEL = "helix-kernel"


@attrs.frozen
class LockedDistribution:
    """A distribution: its version, and the digest of all its Python source ("" where it has none)."""

    version: str
    source: str


@attrs.frozen
class LockedComponent:
    """A component: where it comes from, and the digest of the source of its target and config class.

    The digest is "" where the target is compiled, or another distribution's class.
    """

    distribution: str
    version: str
    target: str
    source: str


@attrs.frozen(kw_only=True)
class Record:
    """What serves a config.

    Args:
        distributions: By name, the kernel's own among them.
        components: By ``kind/provider:name``.
    """

    distributions: Mapping[str, LockedDistribution]
    components: Mapping[str, LockedComponent]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, sorted by name."""
        return {
            field: {name: attrs.asdict(item) for name, item in sorted(getattr(self, field).items())}
            for field in ("distributions", "components")
        }

    def restricted(self, names: Iterable[str]) -> Record:
        """Return what it says of some components, their distributions and the kernel."""
        components = {name: self.components[name] for name in names}
        providers = {KERNEL, *(component.distribution for component in components.values())}
        kept = {name: item for name, item in self.distributions.items() if name in providers}
        return Record(distributions=kept, components=components)

    @classmethod
    def from_dict(cls, table: Any) -> Record:
        """Return the record that `as_dict` gave.

        Raises:
            LockError: It is not one.
        """
        try:
            return cls(
                distributions={n: LockedDistribution(**t) for n, t in table["distributions"].items()},
                components={n: LockedComponent(**t) for n, t in table["components"].items()},
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise LockError(f"it is no record of components and distributions ({error!r})") from error


def record_of(config: Config) -> Record:
    """Return what serves a config: its components, nested ones too, and the ops and backends they may use."""
    used = list(components_within(config.sections))
    backends = [c for c in config.kernel.components("backend") if _may_serve(c, config.settings.backends)]
    providers = _with_required({c.provider for c in (*used, *backends)}, config.kernel)
    ops = [c for c in config.kernel.components("op") if c.provider in providers]
    return record_components([*used, *backends, *ops], config.kernel)


def record_components(components: Iterable[Component], kernel: Kernel) -> Record:
    """Return the record of some components, their distributions and the kernel."""
    named = {f"{component.kind}/{component.qualified}": component for component in components}
    versions = {component.provider: component.version for component in named.values()}
    packages = {provider: own_packages(provider, kernel) for provider in versions}
    distributions = {
        provider: LockedDistribution(version, digest_of_packages(packages[provider]))
        for provider, version in versions.items()
    }
    return Record(
        distributions={KERNEL: _kernel(), **distributions},
        components={
            name: LockedComponent(
                c.provider, c.version, c.target, digest_of_component(c, packages[c.provider])
            )
            for name, c in named.items()
        },
    )


def _may_serve(backend: Component, wanted: Iterable[str]) -> bool:
    """Whether the config lets a backend serve; whether it can is for each machine to say."""
    return AUTO in wanted or backend.name in wanted


def _with_required(providers: set[str], kernel: Kernel) -> set[str]:
    """Return providers with those that they require, and so on, for they may call each other's ops."""
    known = {plugin.provider for plugin in kernel.plugins}
    found: set[str] = set()
    waiting = set(providers)
    while waiting:
        found |= waiting
        waiting = {name for provider in waiting for name in _required(provider)} & known - found
    return found


def _required(provider: str) -> Iterator[str]:
    distribution = installed_distribution(provider)
    for line in (distribution.requires if distribution else None) or ():
        try:
            yield canonical(Requirement(line).name)
        except InvalidRequirement:  # `helix doctor` reports it
            continue


def _kernel() -> LockedDistribution:
    from helix_kernel import __version__

    spec = find_module("helix_kernel")
    return LockedDistribution(__version__, digest_of_packages({"helix_kernel": spec} if spec else {}))
