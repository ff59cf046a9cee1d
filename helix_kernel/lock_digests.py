"""Digests of the source that a lock holds to.

They are of Python source alone, whatever its line ends, so that a checkout and a wheel agree. A component's
is of the module of its target and that of its config class, where they are its distribution's own; a
distribution's is of every ``.py`` file of its import packages, helpers among them. Compiled extensions, data
files, and what a distribution requires, torch above all, are in none: for these the version stands, or an
installer's own lock. Nothing is imported.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from helix_kernel.distributions import editable_folder, installed_distribution, recorded_packages
from helix_kernel.sources import find_module, outermost_package, source_file, source_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from importlib.machinery import ModuleSpec

    from helix_kernel.component import Component
    from helix_kernel.kernel import Kernel


def own_packages(provider: str, kernel: Kernel) -> dict[str, ModuleSpec]:
    """Return the import packages of a distribution: its manifests', and those of targets that are its own.

    Another's class, such as ``torch.optim:Adam``, is a target too, and of none of its packages.
    """
    plugins = [plugin for plugin in kernel.plugins if plugin.provider == provider]
    manifests = dict(filter(None, (outermost_package(plugin.module) for plugin in plugins)))
    targets = {c.target.partition(":")[0] for plugin in plugins for c in plugin.components}
    # Most targets share one package, and looking a package up searches all of the path.
    shared = tuple(f"{name}." for name in manifests)
    others = sorted(target for target in targets if not f"{target}.".startswith(shared))
    named = dict(filter(None, map(outermost_package, others)))
    own = _ownership(provider, list(manifests.values()))
    return dict(sorted({**{n: spec for n, spec in named.items() if own(n, spec)}, **manifests}.items()))


def digest_of_packages(packages: Mapping[str, ModuleSpec]) -> str:
    """Return the digest of all Python source of some packages; "" of none."""
    return _digest_of_files(
        (f"{package}/{name}", file) for package, spec in packages.items() for name, file in source_files(spec)
    )


def digest_of_component(component: Component, packages: Mapping[str, ModuleSpec]) -> str:
    """Return the digest of what a component names in its distribution's own packages; "" of nothing."""
    spellings = filter(None, (component.target, component.config))
    modules = dict.fromkeys(spelling.partition(":")[0] for spelling in spellings)
    prefixes = tuple(f"{package}." for package in packages)
    own = [module for module in modules if f"{module}.".startswith(prefixes)]
    specs = [spec for module in own if (spec := find_module(module)) is not None]
    return _digest_of_files((spec.name, file) for spec in specs if (file := source_file(spec)) is not None)


def _ownership(provider: str, manifests: Sequence[ModuleSpec]) -> Callable[[str, ModuleSpec], bool]:
    """Return what tells whether an import package is a distribution's own."""
    distribution = installed_distribution(provider)
    folder = editable_folder(distribution) if distribution else None
    if folder is not None:
        return lambda _, spec: _lies_in(spec, folder)
    if distribution is not None and distribution.files is not None:
        recorded = set(recorded_packages(distribution))
        return lambda name, _: name in recorded
    beside = {_folder(spec) for spec in manifests}  # a system's package, which has no RECORD
    return lambda _, spec: _folder(spec) in beside


def _folder(spec: ModuleSpec) -> Path:
    """Return the folder that a package or module lies in."""
    place = Path(spec.origin or "")
    return place.parent if spec.submodule_search_locations is None else place.parent.parent


def _lies_in(spec: ModuleSpec, folder: Path) -> bool:
    file = source_file(spec)
    return file is not None and file.resolve().is_relative_to(folder.resolve())


def _digest_of_files(files: Iterable[tuple[str, Path]]) -> str:
    """Return one digest of files by their names; "" of none."""
    whole, count = hashlib.sha256(), 0
    for name, file in files:
        content = file.read_bytes().replace(b"\r\n", b"\n")
        whole.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\n".encode())
        count += 1
    return f"sha256:{whole.hexdigest()}" if count else ""
