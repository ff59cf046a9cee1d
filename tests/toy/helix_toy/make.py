"""Makes plugins for a test: manifests in memory, and distributions in a folder."""

from __future__ import annotations

import os
from types import ModuleType
from typing import TYPE_CHECKING

import helix_kernel
from helix_kernel import Component, Kernel
from helix_kernel.plugins import Manifest
from helix_toy import plugin

if TYPE_CHECKING:
    from pathlib import Path

LONG_AGO = 10**18  # ns, so that no installer can still be at work


def manifest(name="toy", provider="helix-toy", version="1.2.3", **hooks):
    """Return a manifest whose hook ``helix_<key>`` returns the value, or calls it where it can."""
    module = ModuleType(f"{name}_manifest")
    for key, value in hooks.items():
        body = value if callable(value) else lambda value=value: value
        setattr(module, f"helix_{key}", helix_kernel.hookimpl(_without_arguments(body)))
    return Manifest(name=name, provider=provider, version=version, module=module)


def component(name="thing", target="helix_toy.parts:anything", **fields):
    return Component(name=name, target=target, **fields)


def toy_manifest():
    return Manifest(name="toy", provider="helix-toy", version="1.2.3", module=plugin)


def toy_kernel(*further, **options):
    """Return a kernel of the toy plugin and further manifests, and of nothing that is installed."""
    return Kernel(found=[], manifests=[toy_manifest(), *further], **options)


def kernel_of(*manifests, **options):
    return Kernel(found=[], manifests=manifests, **options)


def install(
    root: Path,
    provider: str,
    entry_points: str | None = "x = x_manifest",
    *,
    version="1.0",
    group="helix_kernel.v1",
    suffix=".dist-info",
    **modules: str,
) -> Path:
    """Write a distribution as pip would, with the modules' sources beside it; return its metadata."""
    metadata = root / f"{provider.replace('-', '_')}-{version}{suffix}"
    metadata.mkdir(parents=True)
    name = "METADATA" if suffix == ".dist-info" else "PKG-INFO"
    (metadata / name).write_text(f"Metadata-Version: 2.1\nName: {provider}\nVersion: {version}\n")
    if entry_points is not None:
        (metadata / "entry_points.txt").write_text(f"[{group}]\n{entry_points}\n")
    for module, source in modules.items():
        (root / f"{module}.py").write_text(source)
    settle(root)
    return metadata


def settle(root: Path, at: int = LONG_AGO) -> None:
    """Set a folder's time."""
    os.utime(root, ns=(at, at))


def _without_arguments(body):
    def hook():
        return body()

    return hook
