"""Loads plugins' manifests, so that one broken plugin neither stops the rest nor is silent."""

from __future__ import annotations

import importlib
import os
import sys
import time
import traceback
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from helix_kernel import hooks
from helix_kernel.component import Component, Kind
from helix_kernel.discovery import canonical
from helix_kernel.errors import HelixError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from helix_kernel.discovery import EntryPoint

_T = TypeVar("_T")
HEAVY_MODULES = ("torch", "numpy", "triton", "jax")
RESERVED_SECTIONS = ("kernel", "extends")


class PluginLoadError(HelixError):
    """A manifest returned something that is not what its hook promises, or needs another API."""


@attrs.frozen(kw_only=True)
class Plugin:
    """A plugin whose manifest loaded.

    Args:
        name: Name of its entry point.
        provider: Name of its distribution.
        version: Version of its distribution.
        module: The manifest module's name.
        import_seconds: How long importing the manifest took.
        heavy_imports: Modules of `HEAVY_MODULES` that the manifest imported, against the rules.
        components: What it offers.
        kinds: The kinds that it brings.
        unknown_hooks: Hooks that it implements and no installed kind has.
    """

    name: str
    provider: str
    version: str
    module: str
    import_seconds: float = 0.0
    heavy_imports: tuple[str, ...] = ()
    components: tuple[Component, ...] = ()
    kinds: tuple[Kind, ...] = ()
    unknown_hooks: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class PluginFailure:
    """A plugin that could not be used, kept to explain what is missing.

    Args:
        name: Name of its entry point.
        provider: Name of its distribution.
        version: Version of its distribution.
        module: The manifest module's name.
        error: What was raised.
        traceback: The same, as Python prints it.
    """

    name: str
    provider: str
    version: str
    module: str
    error: BaseException
    traceback: str

    def __str__(self) -> str:
        reason = f"{type(self.error).__name__}: {self.error}"
        return f"plugin {self.name!r} of {self.provider} {self.version} ({self.module}) failed: {reason}"


@attrs.frozen(kw_only=True)
class Manifest:
    """A manifest module beside the distribution that it came from."""

    name: str
    provider: str
    version: str
    module: Any
    import_seconds: float = 0.0
    heavy_imports: tuple[str, ...] = ()


def selection_from_environment() -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """Return the allow list (None: all) and the deny list of HELIX_PLUGINS and HELIX_PLUGINS_DISABLED."""
    allowed = os.environ.get("HELIX_PLUGINS")
    denied = os.environ.get("HELIX_PLUGINS_DISABLED", "")
    return (None if allowed is None else _names(allowed)), _names(denied)


def select(
    found: Iterable[EntryPoint], allowed: Sequence[str] | None, denied: Sequence[str]
) -> list[EntryPoint]:
    """Keep the entry points that the lists let through; a name is a distribution's or an entry point's."""
    wanted = None if allowed is None else {canonical(name) for name in allowed}
    unwanted = {canonical(name) for name in denied}

    def named(entry_point: EntryPoint, names: set[str]) -> bool:
        return not names.isdisjoint((canonical(entry_point.provider), canonical(entry_point.name)))

    return [
        entry_point
        for entry_point in found
        if (wanted is None or named(entry_point, wanted)) and not named(entry_point, unwanted)
    ]


def load(
    found: Sequence[EntryPoint], further: Sequence[Manifest] = ()
) -> tuple[list[Plugin], list[PluginFailure]]:
    """Import the manifests of this API version, and report those of others unimported.

    Args:
        found: Entry points of plugins.
        further: Manifests that are imported already.
    """
    manifests: list[Manifest] = list(further)
    failures: list[PluginFailure] = []
    served = {(e.provider, e.name) for e in found if e.group == hooks.GROUP}
    for entry_point in found:
        if entry_point.group == hooks.GROUP:
            try:
                manifests.append(_import(entry_point))
            except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a plugin raises is kept
                failures.append(failure(entry_point, error))
        elif (entry_point.provider, entry_point.name) not in served:
            failures.append(failure(entry_point, _incompatible(entry_point)))
    plugins, more = collect(manifests)
    return plugins, failures + more


def collect(manifests: Sequence[Manifest]) -> tuple[list[Plugin], list[PluginFailure]]:
    """Call the hooks of manifests, each by itself: all kinds first, since they make further hooks."""
    manager = hooks.plugin_manager()
    kinds = list(hooks.CORE_KINDS)
    failures: list[PluginFailure] = []
    known: list[tuple[Manifest, tuple[Kind, ...]]] = []
    for manifest in manifests:
        try:
            own = _own_kinds(manifest, kinds)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - as above
            failures.append(failure(manifest, error))
            continue
        known.append((manifest, own))
        for kind in own:
            kinds.append(kind)
            hooks.add_kind(manager, kind)
    plugins = []
    for manifest, own in known:
        try:
            manager.register(manifest.module, name=f"{manifest.provider}/{manifest.name}")
            plugins.append(_plugin(manifest, {kind.hook: kind for kind in kinds}, own))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - as above
            failures.append(failure(manifest, error))
    return _without_orphans(plugins), failures


def failure(source: EntryPoint | Manifest, error: BaseException) -> PluginFailure:
    """Return the record of a plugin that raised `error`."""
    return PluginFailure(
        name=source.name,
        provider=source.provider,
        version=source.version,
        module=_module_name(source),
        error=error,
        traceback="".join(traceback.format_exception(error)),
    )


def _module_name(source: EntryPoint | Manifest) -> str:
    if isinstance(source.module, str):
        return source.module
    return getattr(source.module, "__name__", type(source.module).__name__)


def _own_kinds(manifest: Manifest, taken: Sequence[Kind]) -> tuple[Kind, ...]:
    own: list[Kind] = []
    for kind in _call(manifest, "helix_kinds", Kind):
        _refuse_taken(kind, (*taken, *own))
        own.append(attrs.evolve(kind, provider=manifest.provider))
    return tuple(own)


def _refuse_taken(kind: Kind, taken: Sequence[Kind]) -> None:
    if kind.plural == "kinds" or kind.section in RESERVED_SECTIONS:
        raise PluginLoadError(f"its kind {kind.name!r} has a plural or section that the kernel keeps")
    for other in taken:
        for what in ("name", "plural", "section"):
            value = getattr(kind, what)
            if value is not None and value == getattr(other, what):
                raise PluginLoadError(
                    f"its kind {kind.name!r} has the {what} {value!r}, which {other.provider} brings already"
                )


def _without_orphans(plugins: Sequence[Plugin]) -> list[Plugin]:
    """Drop components of kinds whose owner failed, as if it were not installed."""
    kinds = {kind.name for kind in hooks.CORE_KINDS} | {kind.name for p in plugins for kind in p.kinds}
    return [
        attrs.evolve(plugin, components=tuple(c for c in plugin.components if c.kind in kinds))
        for plugin in plugins
    ]


def _plugin(manifest: Manifest, kinds: dict[str, Kind], own: tuple[Kind, ...]) -> Plugin:
    implemented = [name for name in dir(manifest.module) if _is_hook(manifest.module, name)]
    components = tuple(
        attrs.evolve(component, kind=kinds[name].name, provider=manifest.provider, version=manifest.version)
        for name in implemented
        if name in kinds
        for component in _call(manifest, name, Component)
    )
    _refuse_repeated(components)
    return Plugin(
        name=manifest.name,
        provider=manifest.provider,
        version=manifest.version,
        module=_module_name(manifest),
        import_seconds=manifest.import_seconds,
        heavy_imports=manifest.heavy_imports,
        components=components,
        kinds=own,
        unknown_hooks=tuple(n for n in implemented if n not in kinds and n != "helix_kinds"),
    )


def _refuse_repeated(components: Sequence[Component]) -> None:
    seen: set[tuple[str, str]] = set()
    for component in components:
        for name in component.names:
            if (component.kind, name) in seen:
                raise PluginLoadError(f"it offers the {component.kind} {name!r} twice")
            seen.add((component.kind, name))


def _is_hook(module: Any, name: str) -> bool:
    return name.startswith("helix_") and hasattr(getattr(module, name), f"{hooks.PROJECT}_impl")


def _call(manifest: Manifest, hook: str, record: type[_T]) -> list[_T]:
    if not (hasattr(manifest.module, hook) and _is_hook(manifest.module, hook)):
        return []
    returned = getattr(manifest.module, hook)()
    items = list(returned) if isinstance(returned, Iterable) else [returned]
    for item in items:
        if not isinstance(item, record):
            raise PluginLoadError(
                f"{hook}() gave {item!r}; allowed is a list of helix_kernel.{record.__name__}"
            )
    return items


def _import(entry_point: EntryPoint) -> Manifest:
    if ":" in entry_point.module:
        raise PluginLoadError(
            f"its entry point names {entry_point.module!r}; allowed is a module, its manifest"
        )
    before = {name for name in HEAVY_MODULES if name in sys.modules}
    start = time.perf_counter()
    module = importlib.import_module(entry_point.module)
    return Manifest(
        name=entry_point.name,
        provider=entry_point.provider,
        version=entry_point.version,
        module=module,
        import_seconds=time.perf_counter() - start,
        heavy_imports=tuple(n for n in HEAVY_MODULES if n in sys.modules and n not in before),
    )


def _incompatible(entry_point: EntryPoint) -> PluginLoadError:
    return PluginLoadError(
        f"it is made for API {entry_point.group!r}, this kernel serves {hooks.GROUP!r}; "
        f"install a version of {entry_point.provider} that registers for {hooks.GROUP!r}"
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
