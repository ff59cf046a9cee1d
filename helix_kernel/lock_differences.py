"""What a lock records beside what is installed: each difference, and the command that mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel.diagnosis.mending import install, leave_out, reinstall
from helix_kernel.distributions import editable_folder, installed_distribution
from helix_kernel.nesting import flatten

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from helix_kernel.lock_record import Record

ABSENT = object()
"""Stands for a value that one of the two does not have."""


@attrs.frozen
class Difference:
    """One thing that is not as it was locked.

    Args:
        what: What is locked, and what is there instead.
        mend: The command that brings back what is locked, or in words what would.
        requirement: What pip would have to install, such as ``helix-ssm==0.1.0``, if that mends it.
    """

    what: str
    mend: str
    requirement: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.mend}"


def version_differences(locked: Record, versions: Mapping[str, str]) -> list[Difference]:
    """Return a difference for each distribution that is missing or of another version.

    Args:
        locked: What is locked.
        versions: What takes part here, by distribution.
    """
    found = []
    for name, distribution in locked.distributions.items():
        here = versions.get(name)
        if here is None and installed_distribution(name) is not None:
            what = f"{name}: locked is {distribution.version}, what is installed is broken or left out here"
            found.append(Difference(what, "helix doctor"))
        elif here != distribution.version:
            requirement = f"{name}=={distribution.version}"
            what = f"{name}: locked is {distribution.version}, installed is {here or 'none'}"
            found.append(Difference(what, install(requirement), requirement))
    return found


def source_differences(locked: Record, here: Record) -> Iterator[Difference]:
    """Yield a difference for each distribution and component that is the same version of other source."""
    same = {
        name
        for name, distribution in locked.distributions.items()
        if name in here.distributions and here.distributions[name].version == distribution.version
    }
    for name in sorted(same):
        changed = _changed_components(locked, here, name)
        if changed or locked.distributions[name].source != here.distributions[name].source:
            version = locked.distributions[name].version
            where = f" in {', '.join(changed)}" if changed else ", in none of the components' own modules"
            what = f"{name} {version}: its source is not what was recorded{where}"
            yield Difference(what, _restoring(name, version))


def unlocked_backends(locked: Record, here: Record) -> Iterator[Difference]:
    """Yield a difference for each backend that would serve and is not locked.

    Whatever else takes part anew is a difference of the config, or of a distribution's source.
    """
    for name, component in here.components.items():
        if name.startswith("backend/") and name not in locked.components:
            what = (
                f"{name}: of {component.distribution} {component.version}, may serve here and is not locked"
            )
            yield Difference(what, leave_out(component.distribution))


def serving_differences(locked: Record, here: Record) -> list[Difference]:
    """Return each difference of version, source and backends between two records."""
    versions = {name: distribution.version for name, distribution in here.distributions.items()}
    return [
        *version_differences(locked, versions),
        *source_differences(locked, here),
        *unlocked_backends(locked, here),
    ]


def config_differences(
    locked: Mapping[str, Any], here: Mapping[str, Any], *, free: Iterable[str] = ()
) -> Iterator[Difference]:
    """Yield a difference for each option of another value.

    Args:
        locked: The frozen config that was locked.
        here: The frozen config of now.
        free: Options, or tables of them, that may differ.
    """
    before, now = flatten(dict(locked)), flatten(dict(here))
    for path in dict.fromkeys((*before, *now)):
        if any(path == name or path.startswith(f"{name}.") for name in free):
            continue
        old, new = before.get(path, ABSENT), now.get(path, ABSENT)
        if repr(old) != repr(new):  # so that a NaN is like another
            mend = f"set it back to {old!r}" if old is not ABSENT else "leave it out"
            yield Difference(f"{path}: locked is {_shown(old)}, given is {_shown(new)}", mend)


def _changed_components(locked: Record, here: Record, distribution: str) -> list[str]:
    """Return the components of a distribution whose target is another or of other source."""
    changed = []
    for name, component in locked.components.items():
        now = here.components.get(name)
        if now is not None and component.distribution == distribution and now.target != component.target:
            changed.append(f"{name} ({component.target}, now {now.target})")
        elif now is not None and component.distribution == distribution and now.source != component.source:
            changed.append(f"{name} ({component.target})")
    return sorted(changed)


def _restoring(name: str, version: str) -> str:
    distribution = installed_distribution(name)
    folder = editable_folder(distribution) if distribution else None
    if folder is not None:
        return f"bring back what was recorded in {folder}, from where it is installed in editable mode"
    return reinstall(name, version)


def _shown(value: Any) -> str:
    return "absent" if value is ABSENT else repr(value)
