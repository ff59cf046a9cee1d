"""Checks what plugins and their components require, among it the range of kernels that they work with."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement

from helix_kernel.diagnosis.finding import Finding
from helix_kernel.diagnosis.mending import install, upgrade

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from helix_kernel.component import Component
    from helix_kernel.diagnosis.installation import Installation


def check_requirements(installation: Installation) -> Iterator[Finding]:
    """Find requirements of plugins' distributions that are not met, and those of single components."""
    for provider, distribution in installation.distributions.items():
        for line in distribution.requires or ():
            yield from _of_distribution(provider, line)
    yield from _of_components(installation)


def unmet(component: Component) -> list[str]:
    """Return what a component's `requires` asks for and is not installed, each as a requirement."""
    return list(dict.fromkeys(found for line in component.requires for found in _unmet(line)))


def _of_distribution(provider: str, line: str) -> Iterator[Finding]:
    try:
        requirement = Requirement(line)
    except InvalidRequirement:
        yield Finding(
            check="requirement",
            what=f"{provider} requires {line!r}, which no installer understands",
            mend=upgrade(provider),
            note="or tell its authors",
            provider=provider,
        )
        return
    if not _applies(requirement) or _is_met(requirement):
        return
    found = _installed(requirement.name) or "none"
    is_kernel = requirement.name == "helix-kernel"
    wanted = f"{requirement.name}{_extras(requirement)}"
    mend = install(f"{wanted} @ {requirement.url}" if requirement.url else f"{wanted}{requirement.specifier}")
    newer = f"or a version of it that works with helix-kernel {found}: {upgrade(provider)}"
    yield Finding(
        check="kernel-range" if is_kernel else "requirement",
        what=f"{provider} requires {line}, installed is {found}",
        mend=mend,
        note=newer if is_kernel else "",
        provider=provider,
    )


def _of_components(installation: Installation) -> Iterator[Finding]:
    """Note, for each requirement that is not met, the components that wait for it."""
    waiting: dict[tuple[str, ...], list[Component]] = {}
    for component in installation.kernel.components():
        if unmet(component):
            waiting.setdefault(component.requires, []).append(component)
    for requires, components in waiting.items():
        names = ", ".join(f"{c.kind} {c.name}" for c in components)
        missing = ", ".join(unmet(components[0]))
        yield Finding(
            check="component-requires",
            level="note",
            what=f"{names} cannot be built without {missing}",
            mend=install(*requires),
            provider=components[0].provider,
        )


def _unmet(line: str) -> Iterator[str]:
    try:
        requirement = Requirement(line)
    except InvalidRequirement:
        yield line
        return
    if not _is_met(requirement):
        yield line
        return
    for extra in sorted(requirement.extras):
        for further in map(Requirement, _requires(requirement.name)):
            needed = further.marker is not None and not _applies(further) and _applies(further, extra)
            if needed and not _is_met(further):
                yield f"{further.name}{_extras(further)}{further.specifier}"


def _applies(requirement: Requirement, extra: str = "") -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _is_met(requirement: Requirement) -> bool:
    found = _installed(requirement.name)
    return found is not None and requirement.specifier.contains(found, prereleases=True)


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _requires(name: str) -> Iterable[str]:
    return importlib.metadata.requires(name) or ()


def _extras(requirement: Requirement) -> str:
    return f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
