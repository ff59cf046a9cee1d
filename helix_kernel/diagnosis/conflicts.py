"""Checks what two distributions both claim: names of components, commands, plugins, and import packages."""

from __future__ import annotations

import shlex
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from helix_kernel.cli.direct import COMMANDS
from helix_kernel.diagnosis.finding import Finding
from helix_kernel.diagnosis.mending import leave_out, uninstall
from helix_kernel.distributions import recorded_packages
from helix_kernel.sources import outermost_package

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from helix_kernel.diagnosis.installation import Installation


def check_conflicts(installation: Installation) -> Iterator[Finding]:
    """Find names that two providers claim, and modules that come from another place than their plugin."""
    yield from _component_names(installation)
    yield from _commands(installation)
    yield from _plugin_names(installation)
    yield from _packages(installation)
    yield from _elsewhere(installation)


def _component_names(installation: Installation) -> Iterator[Finding]:
    """Find names of components that several providers offer and no preference settles."""
    claims = defaultdict(set)
    for component in installation.kernel.components():
        if component.kind != "command":
            for name in component.names:
                claims[component.kind, name].add(component.provider)
    for (kind, name), providers in claims.items():
        if len(providers) > 1 and providers.isdisjoint(installation.kernel.registry.prefer):
            first, *_, last = sorted(providers)
            yield Finding(
                check="two-providers",
                what=f"{_listed(providers)} both offer the {kind} {name!r}, so that name alone means neither",
                mend=leave_out(last),
                note=f"or keep both: write use = {f'{first}:{name}'!r}, or [kernel] prefer = [{first!r}]",
                provider=last,
            )


def _commands(installation: Installation) -> Iterator[Finding]:
    own = {words[0] for words in COMMANDS}
    claims = defaultdict(set)
    for component in installation.kernel.components("command"):
        for name in (component.name, *component.aliases):
            claims[name].add(component.provider)
            if name.partition(" ")[0] in own:
                claims[name].add("helix-kernel")
    for name, providers in claims.items():
        if len(providers) > 1:
            others = sorted(providers - {"helix-kernel"})
            spellings = " or ".join(f"helix {provider}:{name}" for provider in others)
            yield Finding(
                check="commands-clash",
                what=f"{_listed(providers)} both bring the command {name!r}",
                mend=leave_out(others[-1]),
                note=f"or keep both, and call {spellings}",
                provider=others[-1],
            )


def _plugin_names(installation: Installation) -> Iterator[Finding]:
    claims = defaultdict(set)
    for entry in installation.found:
        claims[entry.name].add(entry.provider)
    for name, providers in claims.items():
        if len(providers) > 1:
            last = max(providers)
            yield Finding(
                check="plugin-names",
                what=f"{_listed(providers)} both have a plugin called {name!r}, so HELIX_PLUGINS={name} "
                "means both",
                mend=leave_out(last),
                note="or keep both, and select them by the names of their distributions",
                provider=last,
            )


def _packages(installation: Installation) -> Iterator[Finding]:
    """Find import packages that two distributions own: the files of one lie over those of the other."""
    owners = defaultdict(set)
    for entry in installation.found:
        outermost = outermost_package(entry.module.partition(":")[0])
        if outermost is not None:
            owners[outermost[0]].add(entry.provider)
    for provider, distribution in installation.distributions.items():
        for package in recorded_packages(distribution):
            owners[package].add(provider)
    for package, providers in owners.items():
        if len(providers) > 1:
            last = max(providers)
            yield Finding(
                check="import-package",
                what=f"{_listed(providers)} both own the import package {package!r}: only one of them can "
                "be imported",
                mend=uninstall(last),
                note=f"or remove the other: {uninstall(min(providers))}; then install again what is kept",
                provider=last,
            )


def _elsewhere(installation: Installation) -> Iterator[Finding]:
    """Find manifests that were imported from another folder than the one they are installed in."""
    for entry in installation.found:
        distribution = installation.distributions[entry.provider]
        file = getattr(sys.modules.get(entry.module), "__file__", None)
        if file is None:
            continue
        expected = [
            Path(str(distribution.locate_file(name)))
            for name in distribution.files or ()
            if name.suffix == ".py"
            and ".".join(name.with_suffix("").parts).removesuffix(".__init__") == entry.module
        ]
        if expected and not any(path.exists() and path.samefile(file) for path in expected):
            yield Finding(
                check="shadowed-module",
                what=f"{entry.provider}: its manifest {entry.module} is imported from {file}, which hides "
                f"{expected[0]}",
                mend=shlex.join(["mv", file, f"{file}.hidden"]),
                note="or take its folder off PYTHONPATH, or run helix from another folder",
                provider=entry.provider,
            )


def _listed(providers: set[str] | Sequence[str]) -> str:
    return " and ".join(sorted(providers))
