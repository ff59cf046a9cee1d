"""Configs: a TOML file in, checked and frozen, every component resolved."""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel import catalogue
from helix_kernel.config.document import Table, read_document, resolve_references
from helix_kernel.config.resolve import Resolved, components_within
from helix_kernel.config.structure import given, make_converter, problems
from helix_kernel.diagnosis.mending import install
from helix_kernel.errors import ConfigError, Problem, did_you_mean
from helix_kernel.options import option
from helix_kernel.renames import told_once

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from helix_kernel.component import Component
    from helix_kernel.kernel import Kernel
    from helix_kernel.lock_record import Record

__all__ = ["Config", "KernelSettings", "Resolved", "load_config", "read_settings", "resolve_document"]


@attrs.frozen(kw_only=True)
class KernelSettings:
    """The ``[kernel]`` table: which plugins take part, and which backends serve ops.

    ``components`` is written by ``helix config resolve``: the version of each component's
    distribution when the config was frozen.
    """

    plugins: tuple[str, ...] | None = option(
        None, help="use only these plugins (distributions or entry points)"
    )
    disabled: tuple[str, ...] = option((), help="leave these plugins out")
    prefer: tuple[str, ...] = option((), help="providers that win where several offer one name")
    backends: tuple[str, ...] = option(("auto",), help="auto, reference, or names of backends")
    components: dict[str, str] = attrs.field(factory=dict, eq=False, metadata={"help": "written by resolve"})

    def kernel(self) -> Kernel:
        """Return a kernel of the plugins that these settings let through."""
        from helix_kernel.kernel import Kernel

        return Kernel(plugins=self.plugins, disabled=self.disabled, prefer=self.prefer)


@attrs.frozen(kw_only=True)
class Config:
    """A checked config with every default filled in.

    Args:
        settings: The ``[kernel]`` table.
        sections: By name, the component of each section.
        source: Where it was read from.
        kernel: The kernel that resolved it.
    """

    settings: KernelSettings
    sections: Mapping[str, Resolved]
    source: str = attrs.field(default="", eq=False)
    kernel: Kernel = attrs.field(eq=False, repr=False)

    def __getitem__(self, section: str) -> Resolved:
        """Return the component of a section.

        Raises:
            ConfigError: The config has no such section.
        """
        if section not in self.sections:
            kind = self.kernel.registry.sections.get(section)
            needs = f"[{section}] is missing; it holds the {kind.name if kind else 'component'} to use"
            raise ConfigError([Problem(section, needs)], self.source)
        return self.sections[section]

    def to_dict(self) -> Table:
        """Return the frozen table: loading it again gives an equal config."""
        settings = attrs.asdict(self.settings)
        settings["components"] = self.versions()
        kernel = {key: value for key, value in settings.items() if value not in (None, {})}
        sections = {name: resolved.to_table() for name, resolved in self.sections.items()}
        table: Table = _without_none({"kernel": kernel, **sections})
        return table

    def to_toml(self) -> str:
        """Return the frozen table as TOML."""
        import tomli_w

        return tomli_w.dumps(self.to_dict())

    def versions(self) -> dict[str, str]:
        """Return the version of the distribution of each component in use, by qualified name."""
        used = components_within(self.sections)
        return dict(sorted((f"{c.kind}/{c.qualified}", c.version) for c in used))

    @cached_property
    def record(self) -> Record:
        """What serves it, with digests of the source as it was when this was first asked for."""
        from helix_kernel.lock_record import record_of

        return record_of(self)


def load_config(path: str | Path, overrides: Sequence[str] = (), *, kernel: Kernel | None = None) -> Config:
    """Read, check and freeze a config file.

    Args:
        path: A TOML file.
        overrides: Assignments such as ``"model.d_model=512"``, strongest last.
        kernel: Resolves the components; made from the ``[kernel]`` table if left out.

    Raises:
        InputError: The file is missing.
        ConfigError: Everything that is wrong with it, each with its path.
    """
    return resolve_document(read_document(path, overrides), source=str(path), kernel=kernel)


def read_settings(path: str | Path) -> KernelSettings:
    """Read only the ``[kernel]`` table of a config file.

    Raises:
        InputError: The file is missing.
        ConfigError: The table is wrong.
    """
    settings, found = _settings(read_document(path).get("kernel", {}))
    if found:
        raise ConfigError(found, str(path))
    return settings


def resolve_document(table: Table, *, source: str = "", kernel: Kernel | None = None) -> Config:
    """Check and freeze a config that is a table already, as a checkpoint holds it.

    Raises:
        ConfigError: Everything that is wrong with it, each with its path.
    """
    with told_once():
        return _resolve_document(table, source, kernel)


def _resolve_document(table: Table, source: str, kernel: Kernel | None) -> Config:
    settings, found = _settings(table.get("kernel", {}))
    if kernel is None:
        kernel = settings.kernel()
    elif settings.prefer:
        kernel = kernel.preferring(settings.prefer)

    def default(path: str) -> Any:
        section, *keys = path.split(".")
        kind = kernel.registry.sections.get(section)
        if kind is None or not keys:
            raise KeyError(path)
        return kernel.resolver.default_of(
            kind.name, _with_default_use(table.get(section, {}), kind.default), keys
        )

    expanded, more = resolve_references(table, default)
    found += more
    sections: dict[str, Resolved] = {}
    for name, value in expanded.items():
        if name == "kernel":
            continue
        kind = kernel.registry.sections.get(name)
        if kind is None:
            found.append(_unknown_section(name, value, kernel))
            continue
        broken = {problem.path for problem in more}
        try:
            sections[name] = kernel.resolver.resolve(
                kind.name, _with_default_use(value, kind.default), supplied=kind.context, path=name
            )
        except ConfigError as error:
            found += [problem for problem in error.problems if problem.path not in broken]
    found += _missing_sections(expanded, kernel)
    if found:
        raise ConfigError(found, source)
    return Config(settings=settings, sections=sections, source=source, kernel=kernel)


def _settings(table: Any) -> tuple[KernelSettings, list[Problem]]:
    if not isinstance(table, dict):
        return KernelSettings(), [Problem("kernel", f"{given(table)}, allowed is a table")]
    try:
        return make_converter().structure(table, KernelSettings), []
    except Exception as error:  # noqa: BLE001 - every cause becomes a line of the report
        return KernelSettings(), problems(error, "kernel")


def _unknown_section(name: str, value: Any, kernel: Kernel) -> Problem:
    known = ["extends", "kernel", *kernel.registry.sections]
    owner = catalogue.SECTIONS.get(name)
    if owner:
        return Problem(
            name, f"no installed plugin brings this section. It comes with {owner}: {install(owner)}"
        )
    what = "section" if isinstance(value, dict) else "option"
    return Problem(name, f"unknown {what}.{did_you_mean(name, known)} Known sections: {', '.join(known[1:])}")


def _missing_sections(table: Table, kernel: Kernel) -> list[Problem]:
    """Report the sections that a component of the config reads and the config lacks."""
    missing: dict[str, Problem] = {}
    for name, value in table.items():
        kind = kernel.registry.sections.get(name)
        with suppress(ConfigError):  # what names no component is reported where it stands
            if kind is None:
                continue
            component = kernel.resolver.component(kind.name, _with_default_use(value, kind.default))
            for section in component.sections:
                if section not in table:
                    missing.setdefault(section, _missing_section(section, component, kernel))
    return list(missing.values())


def _missing_section(section: str, component: Component, kernel: Kernel) -> Problem:
    kind = kernel.registry.sections.get(section)
    if kind is None:
        owner = catalogue.SECTIONS.get(section)
        remedy = f". It comes with {owner}: {install(owner)}" if owner else ""
        return Problem(section, f"missing; {component.qualified} reads it{remedy}")
    known = ", ".join(offered.name for offered in kernel.components(kind.name))
    return Problem(
        section,
        f"missing; {component.qualified} reads it. It holds the {kind.name}, installed: {known or 'none'}",
    )


def _with_default_use(value: Any, default: str | None) -> Any:
    if isinstance(value, dict) and default and "use" not in value:
        return {"use": default, **value}
    return value


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value]
    return value
