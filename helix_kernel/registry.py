"""Looks components up by kind and name among the loaded plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helix_kernel import catalogue
from helix_kernel.diagnosis.mending import install
from helix_kernel.errors import AmbiguousNameError, UnknownNameError, did_you_mean
from helix_kernel.hooks import CORE_KINDS
from helix_kernel.renames import tell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from helix_kernel.component import Component, Kind
    from helix_kernel.plugins import Plugin, PluginFailure


class Registry:
    """The components of the loaded plugins, and the failures of the others.

    Args:
        plugins: Plugins that loaded.
        failures: Plugins that did not.
        prefer: Providers that win where several offer one name, the first first.
        left_out: Providers that are installed, but that the selection of plugins leaves out.
    """

    def __init__(
        self,
        plugins: Sequence[Plugin],
        failures: Sequence[PluginFailure],
        prefer: Sequence[str] = (),
        left_out: Sequence[str] = (),
    ) -> None:
        self.plugins = tuple(plugins)
        self.failures = tuple(failures)
        self.prefer = tuple(prefer)
        self.left_out = tuple(left_out)
        own = [kind for plugin in plugins for kind in plugin.kinds]
        self.kinds: dict[str, Kind] = {kind.name: kind for kind in (*CORE_KINDS, *own)}
        self.sections: dict[str, Kind] = {k.section: k for k in self.kinds.values() if k.section}
        self._by_kind: dict[str, list[Component]] = {name: [] for name in self.kinds}
        for plugin in plugins:
            for component in plugin.components:
                self._by_kind[component.kind].append(component)

    def preferring(self, prefer: Sequence[str]) -> Registry:
        """Return this registry with other preferred providers."""
        return Registry(self.plugins, self.failures, prefer, self.left_out)

    def kind(self, name: str) -> Kind:
        """Return the kind of that name (or plural).

        Raises:
            UnknownNameError: No installed plugin brings it.
        """
        for kind in self.kinds.values():
            if name in (kind.name, kind.plural, kind.name.replace("_", "-"), kind.plural.replace("_", "-")):
                return kind
        raise UnknownNameError(
            f"no kind is called {name!r}.{did_you_mean(name, self.kinds)} "
            f"Known: {', '.join(sorted(self.kinds))}.{self.remedy(catalogue.distribution_of_kind(name))}"
        )

    def components(self, kind: str | None = None) -> list[Component]:
        """Return the components of a kind (or of all), sorted by kind, name and provider."""
        kinds = list(self.kinds) if kind is None else [self.kind(kind).name]
        found = [component for name in kinds for component in self._by_kind[name]]
        return sorted(found, key=lambda c: (c.kind, c.name, c.provider))

    def find(self, kind: str, name: str) -> Component:
        """Return the component of that name, alias or old name; ``provider:name`` picks the provider.

        Raises:
            UnknownNameError: Nobody offers it. Names the distribution that would, if it is a
                first-party one, and the failed plugins that might.
            AmbiguousNameError: Several providers offer it and none is preferred.
        """
        kind = self.kind(kind).name
        matches = self._matches(kind, name)
        if not matches:
            raise UnknownNameError(self._unknown(kind, name))
        if len(matches) > 1:
            raise AmbiguousNameError(_ambiguous(kind, name, matches))
        _tell_if_old(matches[0], name.rpartition(":")[2])
        return matches[0]

    def look_up(self, kind: str, name: str) -> Component | None:
        """Return the component that `find` would, untold of an old name; None where it would raise."""
        matches = self._matches(kind, name) if kind in self._by_kind else []
        return matches[0] if len(matches) == 1 else None

    def _matches(self, kind: str, name: str) -> list[Component]:
        provider, _, short = name.rpartition(":")
        matches = [
            component
            for component in self._by_kind[kind]
            if short in component.names and provider in ("", component.provider)
        ]
        return self._preferred(matches) if len(matches) > 1 else matches

    def _preferred(self, matches: list[Component]) -> list[Component]:
        for provider in self.prefer:
            chosen = [match for match in matches if match.provider == provider]
            if chosen:
                return chosen
        return matches

    def remedy(self, provider: str | None) -> str:
        """Return what might bring a missing name, as a sentence to put at the end of an error.

        Args:
            provider: The distribution that is known to offer it, or None where none is known.
        """
        failed = [f for f in self.failures if provider in (None, f.provider)]
        if failed:
            return " It may be missing because " + "; ".join(str(f) for f in failed) + "."
        if provider is None or any(plugin.provider == provider for plugin in self.plugins):
            return ""
        comes_with = f" It comes with {provider}: {install(provider)}"
        if provider in self.left_out:
            return (
                f"{comes_with} (it is installed here, but HELIX_PLUGINS, HELIX_PLUGINS_DISABLED or the "
                "[kernel] table leaves it out)"
            )
        return comes_with

    def _unknown(self, kind: str, name: str) -> str:
        provider, _, short = name.rpartition(":")
        offered = self._by_kind[kind]
        known = sorted({n for c in offered for n in (c.name, *c.aliases)})
        owner = catalogue.distribution_of(kind, short)
        if provider in ("", owner):
            return (
                f"no {kind} is called {name!r}.{'' if owner else did_you_mean(short, known)}"
                f"{_listing(kind, known)}{self.remedy(owner)}"
            )
        spellings = sorted(f"{c.provider}:{n}" for c in offered for n in (c.name, *c.aliases))
        return (
            f"no {kind} is called {name!r}.{did_you_mean(name, spellings)}{_listing(kind, spellings)}"
            f"{self._absent(provider)}"
        )

    def _absent(self, provider: str) -> str:
        """Explain a provider that was asked for by name, without advising to install a misspelling."""
        here = {plugin.provider for plugin in self.plugins}
        if provider in here or provider in catalogue.DISTRIBUTIONS:
            return self.remedy(provider)
        failed = any(failure.provider == provider for failure in self.failures)
        return self.remedy(provider) if failed else f" No plugin of {provider!r} is installed."


def _listing(kind: str, known: Sequence[str]) -> str:
    return f" Installed: {', '.join(known)}." if known else f" No {kind} is installed."


def _ambiguous(kind: str, name: str, matches: Sequence[Component]) -> str:
    spellings = " or ".join(repr(match.qualified) for match in matches)
    providers = sorted({match.provider for match in matches})
    return (
        f"{len(matches)} providers offer the {kind} {name!r}: {', '.join(providers)}. "
        f"Write {spellings}, or set kernel.prefer = [{providers[0]!r}]"
    )


def _tell_if_old(component: Component, name: str) -> None:
    if name in component.deprecated:
        tell(
            f"{component.kind} {name!r} is called {component.name!r} since "
            f"{component.provider} {component.deprecated[name]}; use the new name"
        )
