"""Draws a panel: curves over the steps of a run as SVG that stretches with the page, its text does not."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import attrs

from helix_train.report.html import Markup, data, element, joined
from helix_train.report.numbers import count, short, significant
from helix_train.report.scale import Scale

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from helix_train.report.series import Series

_BUCKETS = 300
"""How finely a curve is drawn; also what bounds the size of a report, whatever the length of the run."""

_WIDTH = 1000
"""Of the curves' own coordinates, which are stretched to the panel's width."""


@attrs.frozen(kw_only=True)
class Curve:
    """One curve.

    Args:
        label: What it is.
        series: Its points.
        look: A faint line for what scatters, a line, or dots joined by a dashed line.
    """

    label: str
    series: Series
    look: Literal["faint", "line", "dots"] = "line"


@attrs.frozen(kw_only=True)
class Panel:
    """Curves of one unit.

    Args:
        title: What they show.
        unit: Of their values; may be empty.
        curves: At least one, each with a point; the last that is no dots is what the panel is about.
        marks: Steps that are marked, and what happened there.
        text: Writes a value.
        is_log: Whether the axis of values is logarithmic, if they allow it.
        from_zero: Whether that axis begins at 0, if they allow it.
        is_wide: Whether it takes the page's whole width.
    """

    title: str
    unit: str = ""
    curves: Sequence[Curve]
    marks: Sequence[tuple[int, str]] = ()
    text: Callable[[float], str] = significant
    is_log: bool = False
    from_zero: bool = False
    is_wide: bool = False

    def draw(self) -> Markup:
        """Return the panel as a figure with its caption, and its points for whoever hovers over it."""
        drawn = [attrs.evolve(curve, series=curve.series.thinned(_BUCKETS)) for curve in self.curves]
        height = 300 if self.is_wide else 160
        x, y = self._scales()
        plot = element(
            "svg",
            {
                "class": "plot",
                "role": "img",
                "tabindex": 0,
                "height": height,
                "aria-label": self._description(),
            },
            *_grid(x, y, height, self._tick),
            *(_mark(x.at(step), height, what) for step, what in self.marks if x.low <= step <= x.high),
            _lines(drawn, x, y, height),
            *(dot for curve in drawn for dot in _dots(curve, x, y, height)),
            element("line", {"class": "cross", "y1": 0, "y2": height, "visibility": "hidden"}),
        )
        points = [
            {
                "label": curve.label,
                "points": [[int(step), self.text(value)] for step, value in _points(curve.series)],
            }
            for curve in drawn
        ]
        shape = {"class": "panel wide" if self.is_wide else "panel"}
        return element("figure", shape, self._caption(), plot, data({"x": [x.low, x.high], "curves": points}))

    def _scales(self) -> tuple[Scale, Scale]:
        filled = [curve.series for curve in self.curves]
        steps = [float(at) for series in filled for at in (series.steps.min(), series.steps.max())]
        values = [float(at) for series in filled for at in (series.values.min(), series.values.max())]
        room = 0.5 if min(steps) == max(steps) else 0.0
        return (
            Scale(min(steps) - room, max(steps) + room),
            Scale.around(min(values), max(values), is_log=self.is_log, from_zero=self.from_zero),
        )

    def _tick(self, value: float) -> str:
        return short(value) if self.text is significant else self.text(value)

    def _caption(self) -> Markup:
        unit = f"{self.unit}, log scale" if self.is_log and self.unit else self.unit
        keys = [
            element("span", {"class": f"key {curve.look}"}, curve.label)
            for curve in self.curves
            if len(self.curves) > 1
        ]
        return element(
            "figcaption",
            None,
            element("h3", None, self.title, *([" ", element("small", None, unit)] if unit else [])),
            *([element("p", {"class": "keys"}, *keys)] if keys else []),
            element("output", None, self._summary()),
        )

    def _summary(self) -> str:
        series = [curve.series for curve in self.curves if curve.look != "dots"] or [self.curves[0].series]
        main = series[-1]
        least, most = int(main.values.argmin()), int(main.values.argmax())
        last, low, high = (self.text(main.values[at]) for at in (-1, least, most))
        if not self.is_wide:
            return f"last {last} · from {low} to {high}"
        return f"last {last} · lowest {low} at step {count(main.steps[least])} · highest {high}"

    def _description(self) -> str:
        told = [
            f"{curve.label} goes from {self.text(curve.series.values[0])} at step "
            f"{count(curve.series.steps[0])} to {self.text(curve.series.values[-1])} at step "
            f"{count(curve.series.steps[-1])}"
            for curve in self.curves
        ]
        unit = f" ({self.unit})" if self.unit else ""
        return f"{self.title}{unit} over steps: {'; '.join(told)}."


def _grid(x: Scale, y: Scale, height: int, text: Callable[[float], str]) -> Iterator[Markup]:
    for value in y.ticks(6 if height > 200 else 4):
        at = f"{height * (1 - y.at(value)):.1f}"
        yield element("line", {"class": "grid", "x1": 0, "x2": "100%", "y1": at, "y2": at})
        yield element("text", {"x": -8, "y": at, "dy": "0.32em", "text-anchor": "end"}, text(value))
    for value in x.ticks(5):
        if value == int(value):
            place = x.at(value)
            anchor = "end" if place > 0.97 else "middle"
            at = _percent(place)
            yield element("text", {"x": at, "y": height + 18, "text-anchor": anchor}, short(value))
    yield element("line", {"class": "axis", "x1": 0, "x2": "100%", "y1": height, "y2": height})


def _mark(place: float, height: int, what: str) -> Markup:
    at = _percent(place)
    title = element("title", None, what)
    # Wider than it looks, so that a pointer finds it.
    return element(
        "g",
        {"class": "mark"},
        title,
        element("line", {"class": "wide", "x1": at, "x2": at, "y1": 0, "y2": height}),
        element("line", {"x1": at, "x2": at, "y1": 0, "y2": height}),
    )


def _lines(curves: Sequence[Curve], x: Scale, y: Scale, height: int) -> Markup:
    paths = [
        element("path", {"class": curve.look, "d": _path(curve.series, x, y, height)}) for curve in curves
    ]
    box = {"class": "curves", "viewBox": f"0 0 {_WIDTH} {height}", "preserveAspectRatio": "none"}
    return element("svg", {**box, "width": "100%", "height": height}, joined(paths))


def _path(series: Series, x: Scale, y: Scale, height: int) -> str:
    places = (
        f"{_WIDTH * x.at(step):.1f} {height * (1 - y.at(value)):.1f}" for step, value in _points(series)
    )
    return f"M{' '.join(places)}"


def _dots(curve: Curve, x: Scale, y: Scale, height: int) -> Iterator[Markup]:
    """Yield the dots of a curve; one of a single point would not be seen as a line."""
    if (curve.look == "dots" and len(curve.series) <= 60) or len(curve.series) == 1:
        for step, value in _points(curve.series):
            place = {"cx": _percent(x.at(step)), "cy": f"{height * (1 - y.at(value)):.1f}"}
            yield element("circle", {"class": curve.look, **place, "r": 3.5})


def _points(series: Series) -> Iterator[tuple[float, float]]:
    return ((float(s), float(v)) for s, v in zip(series.steps, series.values, strict=True))


def _percent(place: float) -> str:
    return f"{100 * place:.2f}%"


def falls_far(values: Sequence[float]) -> bool:
    """Whether positive values spread over so much that equal ratios show more than equal distances."""
    least, most = min(values), max(values)
    return least > 0 and math.log10(most / least) > 0.6
