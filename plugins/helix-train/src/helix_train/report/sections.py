"""The tables and texts of a report below its curves: each a section with a heading, or nothing."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from helix_kernel.cli.output import readable_size, strict_json
from helix_train.report.html import Markup, element, joined, table
from helix_train.report.numbers import amount, count, duration, moment, significant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from helix_train.report.cost import Level
    from helix_train.report.saved import Saved

_HEADING = re.compile(r"^(\[.*\])$", re.MULTILINE)
_MOST = 200
"""So many lines of notes, and checkpoints, at most."""


def section(title: str, *content: str) -> Markup:
    """Return a section, to which its title can be linked."""
    return element("section", {"id": title.lower().replace(" ", "-")}, element("h2", None, title), *content)


def notes(lines: Sequence[tuple[str, str]]) -> Markup | None:
    """Return what was out of the ordinary: pairs of when and what."""
    if not lines:
        return None
    rows = list(lines[:_MOST])
    if len(lines) > _MOST:
        rows.append(("", f"and {len(lines) - _MOST} more"))
    return section("Notes", table(("When", "What"), rows))


def costs(levels: Sequence[Level], unit: str) -> Markup | None:
    """Return what each level of the loss took."""
    if not levels:
        return None
    spent = [level.spent for level in levels]
    columns = {
        unit.replace("_", " ").capitalize(): [significant(level.loss, 3) for level in levels],
        "Step": [count(one.step) for one in spent],
        "Training time": _known([one.seconds for one in spent], duration),
        "Tokens": _known([one.tokens for one in spent], amount),
        "Work": _known([one.flops for one in spent], lambda value: amount(value, "FLOP")),
    }
    columns = {name: cells for name, cells in columns.items() if cells}
    what = "When the smoothed training loss first reached each level, and what had been spent by then."
    rows = list(zip(*columns.values(), strict=True))
    body = table(list(columns), rows, numbers=len(columns) - 1)
    return section("Cost of loss", element("p", None, what), body)


def samples(texts: Sequence[str]) -> Markup | None:
    """Return what the model wrote."""
    if not texts:
        return None
    return section("Samples", *(element("pre", {"class": "sample", "tabindex": 0}, text) for text in texts))


def checkpoints(saved: Sequence[Saved], size: int) -> Markup | None:
    """Return the checkpoints that there are, and what they take together."""
    if not saved:
        return None
    shown = saved[-_MOST:]
    names = list(dict.fromkeys(name for one in shown for name in one.metrics))
    rows = [
        (
            one.name,
            moment(one.saved_at) if one.damage is None else one.damage,
            *(significant(one.metrics[name]) if name in one.metrics else "-" for name in names),
            readable_size(one.nbytes),
        )
        for one in shown
    ]
    columns = ("Checkpoint", "Saved", *(name.replace("_", " ").capitalize() for name in names), "Size")
    total = f"{count(len(saved))} on disk, {readable_size(size)} together; the newest last."
    head = element("p", None, total)
    return section("Checkpoints", head, table(columns, rows, numbers=len(names) + 1))


def components(versions: Mapping[str, Any], config: Mapping[str, Any]) -> Markup | None:
    """Return the components in use: kind, name, who provides them, and where the config uses them."""
    if not versions:
        return None
    places: dict[str, list[str]] = {}
    for place, use in _uses(config, ""):
        places.setdefault(use, []).append(place)
    rows = []
    for qualified, version in versions.items():
        kind, _, use = qualified.rpartition("/")
        provider, _, name = use.rpartition(":")
        rows.append((name, kind, provider, str(version), ", ".join(places.get(use, ["-"]))))
    return section("Components", table(("Component", "Kind", "Provider", "Version", "Used as"), rows))


def ops(record: Mapping[str, Any]) -> Markup | None:
    """Return which backends serve each op, the first that can."""
    chosen = record.get("chosen")
    if not isinstance(chosen, dict):
        return None
    serving: dict[str, list[str]] = {}
    for backend, served in chosen.items():
        for op in served if isinstance(served, list) else []:
            serving.setdefault(str(op), []).append(str(backend))
    rows = [
        (op, ", then ".join(serving[op]), ", then ".join(serving.get(f"{op}_backward", ["-"])))
        for op in sorted(serving)
        if op.removesuffix("_backward") not in serving.keys() - {op}
    ]
    if not rows:
        return section("Ops", element("p", None, "The references serve every op."))
    text = "Backends in the order in which they are asked; where none can, the reference serves the op."
    return section("Ops", element("p", None, text), table(("Op", "Forward", "Backward"), rows))


def config(toml: str, record: Mapping[str, Any]) -> Markup | None:
    """Return the frozen config as TOML, or as JSON where the run's directory has no TOML any more."""
    text = toml or (json.dumps(strict_json(record), indent=2) if record else "")
    if not text:
        return None
    parts = _HEADING.split(text.strip())
    marked = [element("b", None, part) if at % 2 else part for at, part in enumerate(parts)]
    return section("Config", element("pre", {"class": "config", "tabindex": 0}, joined(marked)))


def environment(values: Mapping[str, Any], more: Mapping[str, str]) -> Markup | None:
    """Return versions, device and threads, and what else names the run's surroundings."""
    rows = [(str(name), str(value)) for name, value in {**values, **more}.items()]
    return section("Environment", table(("What", "Value"), rows)) if rows else None


def _known(values: Sequence[float | None], write: Callable[[float], str]) -> list[str]:
    """Return the cells of a column; none where nobody measured."""
    if all(value is None for value in values):
        return []
    return ["-" if value is None else write(value) for value in values]


def _uses(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield where a config uses a component, and which."""
    if isinstance(value, dict):
        if isinstance(value.get("use"), str):
            yield path, value["use"]
        for key, item in value.items():
            yield from _uses(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for at, item in enumerate(value):
            yield from _uses(item, f"{path}[{at}]")
