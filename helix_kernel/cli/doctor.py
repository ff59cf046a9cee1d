"""The command `doctor`: what this machine has, who serves each op, and what is wrong."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from helix_kernel.cli.output import print_json, print_table, readable_size
from helix_kernel.diagnosis.environment import SELECTING
from helix_kernel.diagnosis.report import diagnose

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from helix_kernel.diagnosis.finding import Finding
    from helix_kernel.diagnosis.report import Report
    from helix_kernel.diagnosis.serving import Serving

_WIDTH = 100


def doctor(file: str | None = None, *, deep: bool = False, json: bool = False) -> int:
    """Say what this machine has, who serves each op and why the others do not, and what is wrong.

    Args:
        file: A config whose ``[kernel]`` table chooses the plugins; all installed ones if left out.
        deep: Import every target and config class, and say which fail; else their files are looked for.
        json: Print one JSON object.

    Returns:
        0, or 1 where something is wrong.
    """
    from helix_kernel.config import read_settings

    report = diagnose(read_settings(file) if file else None, deep=deep)
    if json:
        print_json(report.as_dict())
    else:
        _print(report)
    return 1 if report.wrong else 0


def _print(report: Report) -> None:
    print("\n".join(_environment(report.environment)))
    print()
    _print_plugins(report.plugins)
    _print_serving(report.serving)
    print()
    for finding in report.findings:
        print("\n".join(_told(finding)))
    count = len(report.wrong)
    print(f"{count} {'thing is' if count == 1 else 'things are'} wrong" if count else "Nothing is wrong.")


def _environment(found: Mapping[str, Any]) -> Iterator[str]:
    names = ("helix-kernel", "python", "torch", "cpus", "threads", "simd")
    yield "  ".join(f"{name} {found[name]}" for name in names if found.get(name) is not None)
    yield f"platform {found['platform']}"
    if found["torch"] is None:
        yield "torch is not installed: configs can be checked, but nothing can be built (pip install torch)"
    else:
        yield f"accelerators {'; '.join(map(_accelerator, found['accelerators'])) or 'none'}"
    for name in SELECTING:
        if name in found:
            yield f"{name}={found[name]} is in force"


def _accelerator(found: Mapping[str, Any]) -> str:
    memory = "" if found["memory"] is None else f", {readable_size(found['memory'])}"
    return f"{found['device']} {found['name'] or 'of unknown name'}{memory}"


def _print_plugins(plugins: Sequence[Mapping[str, Any]]) -> None:
    rows = [
        (
            plugin["provider"],
            plugin["version"],
            plugin["name"],
            ", ".join(plugin["api"]),
            f"{plugin['import_seconds'] * 1e3:.1f} ms",
            str(plugin["components"]),
        )
        for plugin in plugins
    ]
    print_table(("plugin of", "version", "name", "API", "import", "components"), rows)


def _print_serving(serving: Serving) -> None:
    if serving.backends:
        print()
        state = {True: "available", False: "not available"}
        rows = [(b["name"], str(b["priority"]), state[b["available"]], b["reason"]) for b in serving.backends]
        print_table(("backend", "priority", "state", "reason"), rows)
    if serving.ops:
        print()
        for (server, device, passed_over), names in _alike(serving.ops).items():
            print(_wrapped(f"{server} serves on {device}: ", ", ".join(names)))
            for name, why in passed_over:
                print(_wrapped(f"  not {name}: ", why))


def _alike(ops: Sequence[Mapping[str, Any]]) -> dict[tuple[Any, ...], list[str]]:
    """Return names of ops by who serves them, on which device, and why the others do not."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for op in ops:
        key = (op["served_by"], op["device"], tuple(op["passed_over"].items()))
        groups.setdefault(key, []).append(op["op"])
    return groups


def _wrapped(head: str, text: str) -> str:
    return textwrap.fill(f"{head}{text}", _WIDTH, subsequent_indent="    ", break_on_hyphens=False)


def _told(finding: Finding) -> Iterator[str]:
    yield f"{finding.level}: {finding.what}"
    # Whole, since a command is there to be copied.
    first, *others = finding.mend.splitlines()
    yield f"  mend: {first}"
    yield from (f"        {line}" for line in others)
    if finding.note:
        yield f"  {finding.note}"
