"""The command `doctor`: what this machine has, who serves each op, and what is wrong."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel import __version__
from helix_kernel.cli.output import print_json, print_table
from helix_kernel.discovery import shadowed
from helix_kernel.kernel import Kernel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helix_kernel.plugins import Plugin


@attrs.frozen
class Finding:
    """Something wrong, and the command that mends it.

    Args:
        what: What is wrong.
        mend: What to type or change.
    """

    what: str
    mend: str


def doctor(*, json: bool = False) -> int:
    """Say what this machine has, who serves each op and why the others do not, and what is wrong.

    Args:
        json: Print one JSON object.

    Returns:
        0, or 1 where something is wrong.
    """
    kernel = Kernel()
    environment = _environment()
    findings = list(_findings(kernel))
    services, backends = _ops(kernel, findings) if environment["torch"] else ([], [])
    if json:
        print_json(
            {
                "environment": environment,
                "plugins": [_plugin(plugin) for plugin in kernel.plugins],
                "backends": backends,
                "ops": services,
                "findings": [attrs.asdict(finding) for finding in findings],
            }
        )
    else:
        _print(environment, kernel, backends, services, findings)
    return 1 if findings else 0


def _environment() -> dict[str, Any]:
    found: dict[str, Any] = {
        "helix-kernel": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "torch": None,
    }
    try:
        import torch
    except ImportError:
        return found
    found["torch"] = torch.__version__
    found["threads"] = torch.get_num_threads()
    found["simd"] = torch.backends.cpu.get_cpu_capability()
    found["accelerators"] = torch.accelerator.device_count()
    return found


def _findings(kernel: Kernel) -> Iterator[Finding]:
    for failure in kernel.failures:
        again = f"pip install --upgrade --force-reinstall {failure.provider}"
        yield Finding(str(failure), f"{again}, or leave it out: HELIX_PLUGINS_DISABLED={failure.name}")
    for hidden in shadowed():
        what = f"{hidden.provider} {hidden.version} in {hidden.location} is hidden by another of its name"
        yield Finding(what, f"pip uninstall {hidden.provider}, then install the one you want")
    for plugin in kernel.plugins:
        yield from _of_plugin(kernel, plugin)


def _of_plugin(kernel: Kernel, plugin: Plugin) -> Iterator[Finding]:
    name = f"plugin {plugin.name!r} of {plugin.provider}"
    if plugin.heavy_imports:
        heavy = ", ".join(plugin.heavy_imports)
        mend = f"import {heavy} inside the functions that use it, in {plugin.module}"
        yield Finding(f"{name}: its manifest imports {heavy}", mend)
    for hook in plugin.unknown_hooks:
        known = ", ".join(kind.hook for kind in kernel.registry.kinds.values())
        mend = f"correct its name, or install what brings that kind; known hooks: {known}"
        yield Finding(f"{name}: nothing calls {hook}()", mend)
    yield from _unmet_requirements(plugin)


def _unmet_requirements(plugin: Plugin) -> Iterator[Finding]:
    from packaging.requirements import InvalidRequirement, Requirement

    for line in _requires(plugin.provider):
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            what = f"{plugin.provider} requires {line!r}, which no installer understands"
            yield Finding(what, f"pip install --upgrade {plugin.provider}, or tell its authors")
            continue
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        installed = _installed(requirement.name)
        if installed is None or not requirement.specifier.contains(installed, prereleases=True):
            what = f"{plugin.provider} requires {line}, installed is {installed or 'none'}"
            yield Finding(what, f"pip install '{requirement.name}{requirement.specifier}'")


def _requires(provider: str) -> list[str]:
    try:
        return importlib.metadata.requires(provider) or []
    except importlib.metadata.PackageNotFoundError:  # a manifest that is not installed
        return []


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _ops(kernel: Kernel, findings: list[Finding]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    try:
        selection = kernel.backend_selector.select(["auto"])
    except Exception as error:  # noqa: BLE001 - a backend's probe may raise anything; doctor reports it
        what = f"choosing backends failed: {type(error).__name__}: {error}"
        findings.append(Finding(what, "leave the plugin out by HELIX_PLUGINS_DISABLED, or upgrade it"))
        return [], []
    names = [component.name for component in kernel.components("op")]
    services = [
        {
            "op": service.op,
            "device": service.device_type,
            "served_by": service.serving,
            "passed_over": dict(service.passed_over),
        }
        for service in selection.services(names)
    ]
    backends = [
        {"name": name, **attrs.asdict(offer.probe), "priority": offer.priority, "ops": sorted(offer.ops)}
        for name, offer in selection.offers.items()
    ]
    return services, backends


def _plugin(plugin: Plugin) -> dict[str, Any]:
    return {
        "provider": plugin.provider,
        "version": plugin.version,
        "name": plugin.name,
        "components": len(plugin.components),
        "import_seconds": plugin.import_seconds,
    }


def _print(
    environment: dict[str, Any],
    kernel: Kernel,
    backends: list[dict[str, Any]],
    services: list[dict[str, Any]],
    findings: list[Finding],
) -> None:
    print("  ".join(f"{key} {value}" for key, value in environment.items() if value is not None))
    if environment["torch"] is None:
        print("torch is not installed: configs can be checked, but nothing can be built (pip install torch)")
    rows = [
        (p.provider, p.version, p.name, f"{p.import_seconds * 1e3:.1f} ms", str(len(p.components)))
        for p in kernel.plugins
    ]
    print()
    print_table(("plugin of", "version", "name", "import", "components"), rows)
    if backends:
        print()
        state = {True: "available", False: "not available"}
        found = [(b["name"], str(b["priority"]), state[b["available"]], b["reason"]) for b in backends]
        print_table(("backend", "priority", "state", "reason"), found)
    if services:
        print()
        others = ["; ".join(f"{n}: {why}" for n, why in s["passed_over"].items()) for s in services]
        ops = [
            (s["op"], s["device"], s["served_by"], other) for s, other in zip(services, others, strict=True)
        ]
        print_table(("op", "device", "served by", "why not the others"), ops)
    print()
    for finding in findings:
        print(f"wrong: {finding.what}\n  mend: {finding.mend}")
    count = len(findings)
    print(f"{count} {'thing is' if count == 1 else 'things are'} wrong" if count else "Nothing is wrong.")
