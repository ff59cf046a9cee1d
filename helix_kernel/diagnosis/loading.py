"""Checks the plugins' manifests: those that fail, that load too much, or that nothing calls."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from helix_kernel import catalogue
from helix_kernel.diagnosis.finding import Finding
from helix_kernel.diagnosis.mending import install, leave_out, reinstall, upgrade
from helix_kernel.distributions import editable_folder
from helix_kernel.errors import nearest
from helix_kernel.hooks import API_VERSION, GROUP
from helix_kernel.plugins import PluginLoadError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helix_kernel.diagnosis.installation import Installation
    from helix_kernel.plugins import Plugin, PluginFailure


def check_loading(installation: Installation) -> Iterator[Finding]:
    """Find plugins that did not load, and those that did against the rules."""
    for failure in installation.kernel.failures:
        yield _failed(installation, failure)
    for plugin in installation.kernel.plugins:
        yield from _heavy(plugin)
        for hook in plugin.unknown_hooks:
            yield _uncalled(installation, plugin, hook)


def _failed(installation: Installation, failure: PluginFailure) -> Finding:
    groups = {e.group for e in installation.found if (e.provider, e.name) == (failure.provider, failure.name)}
    if groups and GROUP not in groups:
        return _incompatible(failure, groups)
    out = leave_out(failure.provider)
    if isinstance(failure.error, PluginLoadError):  # its manifest is wrong, or clashes with another's
        check, mend, note = (
            "manifest",
            out,
            f"or see whether a newer one is right: {upgrade(failure.provider)}",
        )
    else:
        check, note = "broken", f"or leave it out: {out}"
        mend = _restoring(installation, failure)
    return Finding(check=check, what=str(failure), mend=mend, note=note, provider=failure.provider)


def _incompatible(failure: PluginFailure, groups: set[str]) -> Finding:
    newest = max(int(group.rpartition("v")[2]) for group in groups)
    newer = newest > API_VERSION
    return Finding(
        check="api",
        what=str(failure),
        mend=upgrade("helix-kernel", failure.provider) if newer else upgrade(failure.provider),
        note=f"or leave it out: {leave_out(failure.provider)}",
        provider=failure.provider,
    )


def _restoring(installation: Installation, failure: PluginFailure) -> str:
    """Return what puts a broken plugin right: its own files again, or a newer version of it."""
    distribution = installation.distributions.get(failure.provider)
    folder = editable_folder(distribution) if distribution is not None else None
    if folder is not None:
        return install(str(folder), options=("-e",))
    missing = failure.error.name if isinstance(failure.error, ModuleNotFoundError) else None
    if missing and missing.partition(".")[0] == failure.module.partition(".")[0]:
        return reinstall(failure.provider, failure.version)
    return upgrade(failure.provider)


def _heavy(plugin: Plugin) -> Iterator[Finding]:
    if plugin.heavy_imports:
        heavy = ", ".join(plugin.heavy_imports)
        yield Finding(
            check="heavy-manifest",
            what=f"plugin {plugin.name!r} of {plugin.provider}: its manifest imports {heavy}",
            mend=upgrade(plugin.provider),
            note=f"if it is yours, import {heavy} inside the functions that use it, in {plugin.module}",
            provider=plugin.provider,
        )


def _uncalled(installation: Installation, plugin: Plugin, hook: str) -> Finding:
    """Tell a misspelled hook, which is wrong, from that of a kind whose owner is not installed."""
    what = f"plugin {plugin.name!r} of {plugin.provider}: nothing calls {hook}()"
    hooks = [kind.hook for kind in installation.kernel.registry.kinds.values()]
    if owner := _owner(hook):
        return Finding(
            check="hook",
            level="note",
            what=f"{what}; its kind comes with {owner}, which takes no part here",
            mend=install(owner),
            provider=plugin.provider,
        )
    match = nearest(hook.removeprefix("helix_"), [known.removeprefix("helix_") for known in hooks])
    return Finding(
        check="hook",
        level="wrong" if match else "note",
        what=what
        + (f". Did you mean helix_{match}()?" if match else "; no installed plugin brings such a kind"),
        mend=upgrade(plugin.provider),
        note=f"if it is yours, correct its name; known hooks: {', '.join(hooks)}",
        provider=plugin.provider,
    )


def _owner(hook: str) -> str | None:
    """Return the first-party distribution whose kind a hook is of: the one that offers most of that kind."""
    offered = catalogue.COMPONENTS.get(hook.removeprefix("helix_").removesuffix("s"), {})
    return Counter(offered.values()).most_common(1)[0][0] if offered else None
