"""The reference of configs: their sections, the `[kernel]` table, and the JSON Schema."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from generated_pages.components import option_row
from generated_pages.markdown import anchor, code, table
from helix_kernel.config import KernelSettings
from helix_kernel.config.json_schema import json_schema
from helix_kernel.config.schema import schema_of_class

if TYPE_CHECKING:
    from helix_kernel import Kernel


def page(kernel: Kernel) -> str:
    """Return the tables of sections and of the kernel's settings, which `reference/config.md` includes."""
    sections = [
        (
            code(f"[{name}]"),
            f"[{code(kind.name)}](#kind-{anchor(kind.name)})",
            code(kind.default or ""),
            kind.provider,
        )
        for name, kind in sorted(kernel.registry.sections.items())
    ]
    settings = [option_row(option) for option in schema_of_class(KernelSettings).options.values()]
    return (
        "---\norphan: true\n---\n\n# Sections and settings\n\n## Sections\n\n"
        f"{table(('section', 'holds a', 'without `use` it means', 'brought by'), sections)}\n\n"
        "## The table `[kernel]`\n\n"
        f"{table(('key', 'allowed', 'default', 'what it is'), settings)}\n"
    )


def schema(kernel: Kernel) -> str:
    """Return the JSON Schema of everything installed."""
    return json.dumps(json_schema(kernel), indent=2) + "\n"
