"""The reference of kinds and components: one page a kind, from the registry and the components' schemas."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from generated_pages.markdown import anchor, code, table
from helix_kernel.config.schema import Option, schema_of
from helix_kernel.config.structure import describe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from helix_kernel import Component, Kernel, Kind


def pages(kernel: Kernel) -> dict[str, str]:
    """Return a page for each kind but commands, and the page that lists the kinds, by file name."""
    kinds = sorted(kernel.registry.kinds.values(), key=lambda kind: kind.name)
    shown = [kind for kind in kinds if kind.name != "command"]
    files = {f"{anchor(kind.name)}.md": kind_page(kind, kernel.components(kind.name)) for kind in shown}
    return {"kinds.md": kinds_page(kernel, shown), **files}


def kinds_page(kernel: Kernel, kinds: Sequence[Kind]) -> str:
    """Return the page that lists the kinds."""
    rows = [
        (
            f"[{code(kind.name)}]({anchor(kind.name)}.md)",
            kind.summary,
            code(f"[{kind.section}]") if kind.section else "",
            code(kind.hook),
            kind.provider,
            str(len(kernel.components(kind.name))),
        )
        for kind in kinds
    ]
    toctree = "\n".join(anchor(kind.name) for kind in kinds)
    return (
        "# Components\n\n"
        "Every component belongs to a kind. A config names it by `use`; a plugin offers it by the kind's\n"
        "hook. These pages are made from what was installed when the site was built. For your own machine,\n"
        "ask `helix components` and `helix show KIND NAME`.\n\n"
        f"{table(('kind', 'what it is', 'section of a config', 'hook', 'brought by', 'installed'), rows)}\n\n"
        "```{toctree}\n:hidden:\n\n" + toctree + "\n```\n"
    )


def kind_page(kind: Kind, components: Sequence[Component]) -> str:
    """Return the page of one kind, with each of its components."""
    facts = [
        ("hook", code(kind.hook)),
        ("section of a config", code(f"[{kind.section}]") if kind.section else "none"),
        ("used where a section has no `use`", code(kind.default) if kind.default else ""),
        ("arguments that the builder adds", ", ".join(map(code, kind.context))),
        ("conformance suite", code(kind.suite) if kind.suite else ""),
        ("brought by", kind.provider),
    ]
    parts = [
        f"(kind-{anchor(kind.name)})=\n# {kind.name.replace('_', ' ').capitalize()}",
        f"{kind.summary}.",
        "\n".join(f"- {name}: {value}" for name, value in facts if value),
        *(component_section(component) for component in components),
    ]
    if not components:
        parts.append("None is installed.")
    return "\n\n".join(parts) + "\n"


def component_section(component: Component) -> str:
    """Return the part of a page that describes one component."""
    parts = [
        f"({anchor(component.kind, component.name)})=\n## {component.name}",
        f"{component.summary}.",
        f"{component.provider} {component.version}, {code(component.target)}",
    ]
    if component.aliases:
        parts.append(f"Also called {', '.join(map(code, component.aliases))}.")
    if component.deprecated:
        old = ", ".join(f"{code(name)} (since {since})" for name, since in component.deprecated.items())
        parts.append(f"Old names, which still work with a warning: {old}.")
    if component.requires:
        parts.append(f"Needs {', '.join(map(code, component.requires))}.")
    if component.kind not in ("op", "backend"):
        options = list(schema_of(component).options.values())
        rows = [option_row(option) for option in options]
        parts.append(table(("option", "allowed", "default", "what it is"), rows) if rows else "No options.")
    return "\n\n".join(parts)


def option_row(option: Option) -> tuple[str, str, str, str]:
    """Return name, allowed values, default and description of an option."""
    bounds = f" {option.bounds}" if option.bounds else ""
    default = "required" if option.required else code(option.default)
    return code(option.name), _plain(describe(option.type) + bounds), default, option.help


def _plain(words: str) -> str:
    """Return words as they are, though they hold signs that Markdown would take for its own."""
    return re.sub(r"([\\`*_<>\[\]{}$])", r"\\\1", words)
