"""What a checkpoint needs, beside what is installed: API, distributions, components, and pip's command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import attrs

from helix_kernel.component import reads_version
from helix_kernel.diagnosis.mending import install, upgrade

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

State = Literal["ok", "read", "version", "missing", "broken"]


@attrs.frozen(kw_only=True)
class Need:
    """One thing that a checkpoint needs.

    Args:
        name: A component, as ``kind/provider:name``; or ``plugin API``.
        provider: The distribution that it comes from.
        saved: Its version when the checkpoint was saved.
        installed: Its version now, or None.
        state: ``ok``; ``read``, where the installed component declares that it reads what this older
            version saved; ``version``, where another version line is installed and has the component;
            ``missing``; or ``broken``, where the distribution's plugin does not load.
        detail: Why it is broken, or what of it is missing.
    """

    name: str
    provider: str
    saved: str
    installed: str | None
    state: State
    detail: str = ""

    @property
    def requirement(self) -> str:
        """What pip would have to install to mend it, or nothing where that would not."""
        if self.state in ("ok", "read", "broken"):
            return ""
        return self.provider if self.name == API else f"{self.provider}=={self.saved}"

    @property
    def command(self) -> str:
        """The pip command that mends it, or nothing where none would."""
        if not self.requirement:
            return ""
        return upgrade(self.requirement) if self.name == API else install(self.requirement)

    def __str__(self) -> str:
        needed = f"it needs {self.provider} {self.saved}"
        if self.name == API:
            return f"it needs {API} {self.saved}, installed is {self.installed}: {self.command}"
        if self.state == "broken":
            return f"{needed}, which is installed but broken: {self.detail} (see helix doctor)"
        if self.installed is None:
            return f"{needed}, which is not installed: {self.command}"
        if self.state == "missing":
            return f"{needed}, installed is {self.installed}, which has no {self.name}: {self.command}"
        if self.state == "read":
            return f"{needed}, installed is {self.installed}, which reads it"
        another = "major version"
        if _line(self.saved)[0] == _line(self.installed)[0]:
            another = "minor version, which below 1.0 may change anything"
        return f"{needed}, installed is {self.installed}, another {another}: {self.command}"


API = "plugin API"


def needs(attributes: Mapping[str, Any], listing: Mapping[str, Any]) -> list[Need]:
    """Compare what a checkpoint recorded with what is installed.

    Versions are alike in the sense of semantic versioning: the same major version, or below 1.0 the
    same minor one.

    Args:
        attributes: The checkpoint's: ``api`` and ``components`` count, and may be left out.
        listing: What `helix_kernel.listing` says is installed.

    Returns:
        First the API, then the components by name.
    """
    installed = _Installed(listing)
    components = attributes.get("components") or {}
    found = [installed.need(str(name), str(version)) for name, version in sorted(components.items())]
    return [*_api(attributes), *found]


def _api(attributes: Mapping[str, Any]) -> Iterator[Need]:
    from helix_kernel import __version__
    from helix_kernel.hooks import API_VERSION

    saved = attributes.get("api")
    if saved is not None:
        state: State = "ok" if saved == API_VERSION else "version"
        yield Need(
            name=API,
            provider="helix-kernel",
            saved=str(saved),
            installed=f"{API_VERSION} (helix-kernel {__version__})",
            state=state,
        )


class _Installed:
    """What is installed, by name."""

    def __init__(self, listing: Mapping[str, Any]) -> None:
        self._versions = {plugin["provider"]: plugin["version"] for plugin in listing["plugins"]}
        self._failures = {failure["provider"]: failure for failure in listing["failures"]}
        self._reads = {
            f"{kind}{component['provider']}:{name}": component["reads"]
            for component in listing["components"]
            for kind in (f"{component['kind']}/", "")  # checkpoints of others may leave it out
            for name in (component["name"], *component["aliases"], *component["deprecated"])
        }

    def need(self, name: str, saved: str) -> Need:
        """Return what there is to say of one component."""
        provider = name.rpartition("/")[2].partition(":")[0]
        version = self._versions.get(provider)
        failure = self._failures.get(provider)
        state: State = "ok"
        if name in self._reads:
            state = _state(saved, version or "", self._reads[name])
        elif failure is not None:
            state = "broken"
        else:
            state = "missing"
        return Need(
            name=name,
            provider=provider,
            saved=saved,
            installed=version,
            state=state,
            detail=_reason(failure) if failure and state == "broken" else "",
        )


def _reason(failure: Mapping[str, Any]) -> str:
    return f"plugin {failure['name']!r} ({failure['module']}) failed: {failure['error']}"


def _state(saved: str, installed: str, reads: str) -> State:
    if _line(saved) == _line(installed):
        return "ok"
    return "read" if reads_version(reads, saved, installed) else "version"


def _line(version: str) -> tuple[str, ...]:
    """Return the part of a version that alike ones share."""
    major, _, rest = version.partition(".")
    return (major, rest.partition(".")[0]) if major == "0" else (major,)
