"""The command `helix inspect`."""

from __future__ import annotations

import json as _json
import sys
from collections import Counter
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from helix_multimodal.inspection.reports import Report


def inspect(
    path: str,
    /,
    *,
    limit: int | None = None,
    preview: bool = True,
    max_bytes: int = 1 << 28,
    json: bool = False,
) -> None:
    """Show what every file of a folder is, those in archives among them: told by content, then decoded.

    A file that is damaged, or whose name says something else than its content, is said to be so, and the
    command goes on with the next. Nothing is unpacked to disk. Of a film, the first 100 frames are decoded.

    Such as ``helix inspect photos --limit 20`` or ``helix inspect data.zip --json``.

    Args:
        path: A folder, or one file.
        limit: How many files are shown; left out: all.
        preview: Show what is in each: a line of text, shades of a picture, a curve of loudness, a box.
        max_bytes: Bytes that a file may take when it is decoded or unpacked.
        json: Print one JSON object for each file, a line each, and one that counts them.
    """
    from helix_kernel.errors import ArgumentError
    from helix_multimodal.inspection.reports import reports

    for name, value in (("limit", limit), ("max-bytes", max_bytes)):
        if value is not None and value < 1:
            raise ArgumentError(f"{name} is {value}, allowed is >= 1")
    kinds: Counter[str] = Counter()
    failed = 0
    for report in reports(path, limit=limit, max_bytes=max_bytes):
        kinds[report.kind] += 1
        failed += bool(report.error)
        shown = report if preview else attrs.evolve(report, preview="")
        _print(_json.dumps(attrs.asdict(shown)) if json else _told(shown))
    counts = dict(sorted(kinds.items()))
    if json:
        _print(_json.dumps({"files": kinds.total(), "kinds": counts, "not_decoded": failed}))
        return
    listed = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    _print(f"{kinds.total()} files{': ' if listed else ''}{listed}; {failed} could not be decoded")


def _told(report: Report) -> str:
    """Return the lines on a file: its path, what it is, what is in it, and what is wrong."""
    from helix_kernel.cli.output import readable_size
    from helix_multimodal.inspection.previews import printable

    what = " ".join(word for word in (report.kind, report.format) if word)
    facts = [f"{what} ({report.score:.2f})" if report.score < 1 else what, readable_size(report.size)]
    facts += [f"{name} {held}" for name, held in report.arrays.items()]
    facts += [f"{report.rate:g} Hz"] if report.rate else []
    facts += [f"{name} {value}" for name, value in report.metadata.items() if name != "format"]
    lines = [printable("; ".join(facts))]
    if not report.arrays or "wrong" in report.reason:
        lines.append(printable(report.reason))
    lines += report.preview.splitlines()
    lines += [f"error: {printable(report.error)}"] if report.error else []
    return "\n    ".join([printable(report.path), *lines])


def _print(text: str) -> None:
    """Print a line, with question marks for what the terminal's encoding lacks."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding) + "\n")
