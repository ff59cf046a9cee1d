"""Asks every check, and gathers what they found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel.diagnosis.caches import check_caches
from helix_kernel.diagnosis.conflicts import check_conflicts
from helix_kernel.diagnosis.environment import environment
from helix_kernel.diagnosis.installation import Installation
from helix_kernel.diagnosis.loading import check_loading
from helix_kernel.diagnosis.metadata import check_metadata
from helix_kernel.diagnosis.requirements import check_requirements
from helix_kernel.diagnosis.serving import Serving, serving
from helix_kernel.diagnosis.targets import check_targets
from helix_kernel.hooks import GROUP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helix_kernel.config import KernelSettings
    from helix_kernel.diagnosis.finding import Finding


@attrs.frozen(kw_only=True)
class Report:
    """What a diagnosis found.

    Args:
        environment: What the machine has, by name.
        plugins: A table for each plugin that loaded.
        serving: Who serves each op; empty without torch.
        findings: What is wrong, and what is worth knowing.
    """

    environment: dict[str, Any]
    plugins: tuple[dict[str, Any], ...]
    serving: Serving
    findings: tuple[Finding, ...]

    @property
    def wrong(self) -> tuple[Finding, ...]:
        """The findings that make an installation not right."""
        return tuple(finding for finding in self.findings if finding.level == "wrong")

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "environment": self.environment,
            "plugins": list(self.plugins),
            "backends": list(self.serving.backends),
            "ops": list(self.serving.ops),
            "findings": [attrs.asdict(finding) for finding in self.findings],
        }


def diagnose(settings: KernelSettings | None = None, *, deep: bool = False) -> Report:
    """Look at everything that is installed.

    Args:
        settings: The ``[kernel]`` table of a config, which may leave plugins out or prefer some.
        deep: Import every target, too.
    """
    installation = Installation.here(settings)
    found = environment()
    served = Serving() if found["torch"] is None else serving(installation.kernel)
    return Report(
        environment=found,
        plugins=tuple(_plugins(installation)),
        serving=served,
        findings=(*_findings(installation, deep=deep), *served.findings),
    )


def _findings(installation: Installation, *, deep: bool) -> Iterator[Finding]:
    of_metadata = list(check_metadata(installation))
    yield from of_metadata
    # What half an installation cannot import needs no line of its own.
    explained = {finding.provider for finding in of_metadata}
    yield from (f for f in check_loading(installation) if f.provider not in explained or f.check != "broken")
    yield from check_requirements(installation)
    yield from check_conflicts(installation)
    yield from check_targets(installation, deep=deep)
    yield from check_caches(installation)


def _plugins(installation: Installation) -> Iterator[dict[str, Any]]:
    for plugin in installation.kernel.plugins:
        own = (plugin.provider, plugin.name)
        groups = sorted(e.group for e in installation.found if (e.provider, e.name) == own)
        yield {
            "provider": plugin.provider,
            "version": plugin.version,
            "name": plugin.name,
            "api": [group.rpartition("v")[2] for group in groups or [GROUP]],
            "components": len(plugin.components),
            "import_seconds": plugin.import_seconds,
        }
