"""Which panels a report has: one for each thing that was measured over the steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from helix_train.report.numbers import amount, percent, significant
from helix_train.report.panel import Curve, Panel, falls_far
from helix_train.report.series import Series

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_MOST = 24
"""So many panels of other measurements at most: a report is to be read."""

_SHOWN_APART = frozenset({"step", "seconds", "loss", "bits_per_byte", "lr", "grad_norm", "auxiliary_loss"})


def panels(
    metrics: Sequence[Mapping[str, Any]],
    timing: Sequence[Mapping[str, Any]],
    marks: Sequence[tuple[int, str]],
) -> tuple[list[Panel], list[str]]:
    """Return the panels, the loss first, and notes on what they leave out.

    Args:
        metrics: The lines of ``metrics.jsonl``.
        timing: The lines of ``timing.jsonl``.
        marks: Steps at which something happened, and what.
    """
    notes: list[str] = []

    def series(records: Sequence[Mapping[str, Any]], key: str) -> Series:
        found = Series.of(records, key)
        if found.n_left_out:
            notes.append(f"{found.n_left_out} values of {key} are not finite, and are not drawn")
        return found

    unit = loss_unit(metrics)
    loss = [
        *_scattered("training", series(metrics, unit)),
        Curve(label="held out", series=series(metrics, f"validation_{unit}"), look="dots"),
    ]
    speed = _scattered("tokens per second", series(timing, "tokens_per_second"))
    waits = _scattered("wait for data", series(timing, "data_wait"))
    used = _scattered("FLOP/s used", series(timing, "mfu"))
    norms = _scattered("gradient norm", series(metrics, "grad_norm"))
    found = [
        Panel(
            title="Loss",
            unit=unit.replace("_", " "),
            curves=loss,
            marks=marks,
            is_log=_is_log(loss),
            is_wide=True,
        ),
        _single("Accuracy held out", series(metrics, "validation_accuracy"), text=percent),
        _single("Auxiliary loss", series(metrics, "auxiliary_loss")),
        _single("Learning rate", series(metrics, "lr"), from_zero=True),
        Panel(title="Gradient norm", unit="before clipping", curves=norms, is_log=_is_log(norms)),
        Panel(title="Speed", unit="tokens/s", curves=speed, from_zero=True, text=amount),
        Panel(title="Wait for data", unit="of the time", curves=waits, from_zero=True, text=percent),
        Panel(title="FLOP/s used", unit="of the peak", curves=used, from_zero=True, text=percent),
    ]
    others = _others(metrics)
    found += [_single(key, series(metrics, key)) for key in others[:_MOST]]
    if others[_MOST:]:
        notes.append(f"{len(others) - _MOST} more measurements are not drawn: {', '.join(others[_MOST:])}")
    return [filled for panel in found if (filled := _filled(panel)).curves], notes


def loss_unit(metrics: Sequence[Mapping[str, Any]]) -> str:
    """Return what the loss is shown in: ``bits_per_byte`` where that is known of training, else ``loss``."""
    return "bits_per_byte" if any("bits_per_byte" in record for record in metrics) else "loss"


def _single(
    title: str, series: Series, *, text: Callable[[float], str] = significant, from_zero: bool = False
) -> Panel:
    return Panel(title=title, curves=[Curve(label=title, series=series)], text=text, from_zero=from_zero)


def _scattered(label: str, series: Series) -> list[Curve]:
    """Return a curve as it was measured, faintly, and smoothed; only itself where it has few points."""
    if len(series) < 100:
        return [Curve(label=label, series=series)]
    smoothed = Curve(label="smoothed", series=series.smoothed())
    return [Curve(label=label, series=series, look="faint"), smoothed]


def _others(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    names = {name: None for record in metrics for name in record}
    known = {"validation_loss", "validation_bits_per_byte", "validation_accuracy"} | _SHOWN_APART
    return sorted(name for name in names if name not in known)


def _is_log(curves: Sequence[Curve]) -> bool:
    values = [
        float(at)
        for curve in curves
        if len(curve.series)
        for at in (curve.series.values.min(), curve.series.values.max())
    ]
    return bool(values) and falls_far(values)


def _filled(panel: Panel) -> Panel:
    """Return a panel without the curves that have no point."""
    return attrs.evolve(panel, curves=[curve for curve in panel.curves if len(curve.series)])
