"""The report of a run: one HTML file that holds all that it shows and asks no network for anything."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

import helix_train
from helix_kernel.errors import DataError
from helix_train.records import read_records
from helix_train.report import sections
from helix_train.report.cost import Cost
from helix_train.report.curves import loss_unit, panels
from helix_train.report.headline import headline
from helix_train.report.html import Markup, element, joined, raw
from helix_train.report.numbers import moment
from helix_train.report.saved import saved_checkpoints, size_on_disk
from helix_train.report.series import Series
from helix_train.run_directory import CONFIG, EVENTS, METRICS, TIMING, read_run, require_run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from helix_train.records import Record
    from helix_train.run_file import RunRecord

REPORT = "report.html"


def write_report(out: Path) -> Path:
    """Write the report of a run into its directory, in place of an older one.

    Args:
        out: The run's directory; the run may still go on.

    Returns:
        The file, ``report.html``.

    Raises:
        InputError: The directory is not that of a run.
        DataError: What describes the run is damaged.
    """
    require_run(out)
    path = out / REPORT
    temporary = out / f".{REPORT}.tmp"
    temporary.write_text(render(out), encoding="utf-8")
    temporary.replace(path)
    return path


def render(out: Path) -> str:
    """Return the report of a run as HTML.

    Raises:
        DataError: What describes the run is damaged.
    """
    record = read_run(out)
    problems: list[str] = []
    metrics, timing, events = (_records(out / name, problems) for name in (METRICS, TIMING, EVENTS))
    drawn, left_out = panels(metrics, timing, _marks(record, events))
    unit = loss_unit(metrics)
    cost = Cost(
        Series.of(metrics, unit),
        Series.of(timing, "seconds"),
        record.flops_per_step,
        record.tokens_per_step,
    )
    body = [
        sections.notes([*_notes(record, events), *(("", text) for text in [*problems, *left_out])]),
        _curves([panel.draw() for panel in drawn]),
        sections.costs(cost.levels(), unit),
        sections.samples(record.samples),
        sections.checkpoints(saved_checkpoints(out), size_on_disk(out)),
        sections.components(record.components, record.config),
        sections.ops(record.ops),
        sections.config(_text(out / CONFIG), record.config),
        sections.environment(record.environment, _surroundings(out, record)),
    ]
    head = headline(out.resolve().name, record, cost, unit, _median(timing, "tokens_per_second"))
    return _page(out.resolve().name, head, [part for part in body if part is not None])


def _page(name: str, head: Markup, body: Sequence[Markup]) -> str:
    style, script = (_asset(file) for file in ("page.css", "hover.js"))
    # Nothing is fetched, and no script but our own runs, whatever the texts of a run may hold.
    policy = f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    written = f"Written by helix-train {helix_train.__version__}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC."
    top = element(
        "head",
        None,
        element("meta", {"charset": "utf-8"}),
        element("meta", {"http-equiv": "Content-Security-Policy", "content": policy}),
        element("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        element("meta", {"name": "color-scheme", "content": "light dark"}),
        element("title", None, f"{name} - Helix run"),
        raw("style", style),
    )
    main = element("main", None, *body)
    foot = element("footer", None, element("p", None, written))
    page = element("body", None, joined([head, main, foot, raw("script", script)]))
    return f"<!doctype html>\n{element('html', {'lang': 'en'}, top, page)}\n"


def _curves(figures: Sequence[Markup]) -> Markup | None:
    return sections.section("Curves", element("div", {"class": "panels"}, *figures)) if figures else None


def _records(path: Path, problems: list[str]) -> list[Record]:
    """Return the records of a file; damage is a line of the report, which shows the rest."""
    try:
        return read_records(path)
    except DataError as error:
        problems.append(str(error))
        return []


def _notes(record: RunRecord, events: Sequence[Record]) -> list[tuple[str, str]]:
    """Return what happened, by step: events and times that the run went on."""
    resumed = [(_step(resume), f"went on at {moment(str(resume.get('time')))}") for resume in record.resumes]
    happened = [(_step(event), str(event.get("text", event.get("event", "")))) for event in events]
    return [(f"step {step:,}", text) for step, text in sorted([*resumed, *happened], key=lambda at: at[0])]


def _marks(record: RunRecord, events: Sequence[Record]) -> list[tuple[int, str]]:
    resumed = [(_step(resume), f"step {_step(resume):,}: went on") for resume in record.resumes]
    happened = [
        (_step(event), f"step {_step(event):,}: {event.get('text', event.get('event', ''))}")
        for event in events
    ]
    return [*resumed, *happened][:100]


def _step(table: Any) -> int:
    step = table.get("step")
    return step if isinstance(step, int) else 0


def _surroundings(out: Path, record: RunRecord) -> dict[str, str]:
    host = record.process.host if record.process else None
    known = {"data fingerprint": record.data_fingerprint, "directory": str(out.resolve()), "host": host}
    return {name: value for name, value in known.items() if value}


def _median(timing: Sequence[Record], key: str) -> float | None:
    values = Series.of(timing, key).values
    return float(np.median(values)) if len(values) else None


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _digest(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"
