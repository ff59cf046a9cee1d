"""Checks that what components name exists: by the files, or by importing it."""

from __future__ import annotations

import importlib
from functools import reduce
from typing import TYPE_CHECKING

from helix_kernel.diagnosis.finding import Finding
from helix_kernel.diagnosis.mending import leave_out, upgrade
from helix_kernel.diagnosis.requirements import unmet
from helix_kernel.sources import find_module, may_define

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from helix_kernel.diagnosis.installation import Installation


def check_targets(installation: Installation, *, deep: bool) -> Iterator[Finding]:
    """Find targets, config classes and suites that are not there.

    Args:
        installation: What is installed.
        deep: Import each; else its file is looked for, and its name in that file.
    """
    why_dead: Callable[[str], str] = _import_error if deep else _absence
    named = [(*names, why_dead(names[-1])) for names in _of_components(installation)]
    # A suite imports pytest, which only those who test have.
    named += [(*names, _absence(names[-1])) for names in _suites(installation)]
    dead: dict[tuple[str, str], list[str]] = {}
    for provider, owner, spelling, reason in named:
        if reason:
            dead.setdefault((provider, reason), []).append(f"{owner} ({spelling})")
    for (provider, reason), owners in dead.items():
        yield Finding(
            check="dead-target",
            what=f"{provider}: {reason}; {', '.join(owners)} cannot be used",
            mend=upgrade(provider),
            note=f"if it is yours, correct its manifest; or leave it out: {leave_out(provider)}",
            provider=provider,
        )


def _of_components(installation: Installation) -> Iterator[tuple[str, str, str]]:
    """Yield provider, owner and spelling of what components name, if nothing that they require is missing."""
    for component in installation.kernel.components():
        if not unmet(component):
            for spelling in dict.fromkeys(filter(None, (component.target, component.config))):
                yield component.provider, f"{component.kind} {component.name}", spelling


def _suites(installation: Installation) -> Iterator[tuple[str, str, str]]:
    for kind in installation.kernel.registry.kinds.values():
        if kind.suite is not None:
            yield kind.provider, f"suite of kind {kind.name}", kind.suite


def _absence(spelling: str) -> str:
    """Return why a target cannot be there, or nothing where its file and its name in it are found."""
    module, _, attribute = spelling.partition(":")
    spec = find_module(module)
    if spec is None:
        return f"there is no module {module}"
    if not may_define(spec, attribute):
        return f"{module} has no {attribute.partition('.')[0]}"
    return ""


def _import_error(spelling: str) -> str:
    module, _, attribute = spelling.partition(":")
    try:
        reduce(getattr, attribute.split("."), importlib.import_module(module))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a module may raise anything; it is reported
        return f"importing {module} raised {type(error).__name__}: {error}"
    return ""
