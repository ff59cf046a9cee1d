"""Draws the loss curve of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def draw_loss_curve(records: Sequence[dict[str, Any]], path: Path) -> Path | None:
    """Draw training and held-out bits per byte (or loss) over the steps, as a PNG.

    Args:
        records: The lines of ``metrics.jsonl``.
        path: Where the picture goes.

    Returns:
        The path, or None where matplotlib (the extra ``helix-train[plot]``) is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    unit = "bits_per_byte" if any("bits_per_byte" in record for record in records) else "loss"
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for key, label, style in (
        (unit, "training", {"linewidth": 1.0}),
        (f"validation_{unit}", "held out", {"marker": "o"}),
    ):
        points = [(record["step"], record[key]) for record in records if key in record]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, **style)
    axes.set_xlabel("step")
    axes.set_ylabel(unit.replace("_", " "))
    axes.grid(visible=True, alpha=0.3)
    if axes.lines:
        axes.legend()
    figure.savefig(path, dpi=120)
    return path
