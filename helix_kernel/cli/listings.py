"""The commands `plugins`, `components` and `show`."""

from __future__ import annotations

import sys

from helix_kernel.cli.output import print_json, print_table
from helix_kernel.listing import listing

TYPE_CHECKING = False  # see helix_kernel.cli
if TYPE_CHECKING:
    from typing import Any


def plugins(*, json: bool = False) -> None:
    """List the installed plugins and those that failed.

    Args:
        json: Print one JSON object.
    """
    found = listing()
    if json:
        print_json({"plugins": found["plugins"], "failures": found["failures"]})
        return
    rows = [
        (p["provider"], p["version"], p["name"], str(p["components"]), f"{p['import_seconds'] * 1e3:.1f} ms")
        for p in found["plugins"]
    ]
    if rows:
        print_table(("distribution", "version", "plugin", "components", "import"), rows)
    else:
        print("No plugin is installed. `pip install helix-ssm helix-data helix-train` is a good start.")
    for failed in found["failures"]:
        name = f"{failed['name']!r} of {failed['provider']} {failed['version']} ({failed['module']})"
        print(f"\nfailed: {name}: {failed['error']}", file=sys.stderr)


def components(kind: str | None = None, *, json: bool = False) -> None:
    """List the installed components.

    Args:
        kind: Only those of this kind, such as ``layer``.
        json: Print one JSON object.
    """
    found = listing()
    rows = found["components"] if kind is None else [c for c in found["components"] if _is_of(kind, c, found)]
    if not rows and kind is not None:
        _require_kind(kind)
    if json:
        print_json({"components": rows})
    elif rows:
        columns = ("kind", "name", "provider", "summary")
        print_table(columns, [[component[column] for column in columns] for component in rows])
    else:
        print(f"No {kind or 'component'} is installed.")


def show(kind: str, name: str, *, json: bool = False) -> None:
    """Show a component: where it comes from, its options, defaults and ranges.

    Args:
        kind: Its kind, such as ``layer``.
        name: Its name, or ``provider:name``.
        json: Print one JSON object.
    """
    import attrs

    from helix_kernel.config.schema import schema_of
    from helix_kernel.kernel import default_kernel

    component = default_kernel().find(kind, name)
    schema = schema_of(component)
    options = [_option(option) for option in schema.options.values()]
    if json:
        print_json({**attrs.asdict(component), "doc": schema.doc, "options": options})
        return
    print(f"{component.kind} {component.qualified} {component.version}: {component.summary}")
    print(f"target {component.target}\n")
    if schema.doc:
        print(f"{schema.doc}\n")
    columns = ("option", "allowed", "default", "help")
    print_table(columns, [[option[column] for column in columns] for option in options])


def _option(option: Any) -> dict[str, str]:
    from helix_kernel.config.structure import describe

    allowed = describe(option.type) + (f" {option.bounds}" if option.bounds else "")
    default = "required" if option.required else "" if option.default is None else str(option.default)
    return {"option": option.name, "allowed": allowed, "default": default, "help": option.help}


def _is_of(kind: str, component: dict[str, Any], found: dict[str, Any]) -> bool:
    wanted = kind.replace("-", "_")
    return any(
        component["kind"] == known["name"] and wanted in (known["name"], known["plural"])
        for known in found["kinds"]
    )


def _require_kind(kind: str) -> None:
    from helix_kernel.kernel import default_kernel

    default_kernel().registry.kind(kind)
