"use strict";
// Tells the values of a panel's curves at the step below the pointer, or with the arrow keys.
for (const figure of document.querySelectorAll("figure.panel")) {
  const plot = figure.querySelector("svg.plot");
  const cross = plot.querySelector(".cross");
  const output = figure.querySelector("output");
  const summary = output.textContent;
  const { x: [low, high], curves } = JSON.parse(figure.querySelector("script").textContent);
  const steps = [...new Set(curves.flatMap((curve) => curve.points.map(([step]) => step)))].sort((a, b) => a - b);
  let at = -1;

  // The index of the number in an ascending list that is nearest to a value.
  function nearest(sorted, value) {
    let first = 0;
    let last = sorted.length - 1;
    while (last - first > 1) {
      const middle = (first + last) >> 1;
      if (sorted[middle] <= value) first = middle; else last = middle;
    }
    return value - sorted[first] <= sorted[last] - value ? first : last;
  }

  function show(index) {
    at = Math.max(0, Math.min(steps.length - 1, index));
    const step = steps[at];
    const place = `${(100 * (step - low)) / (high - low)}%`;
    cross.setAttribute("x1", place);
    cross.setAttribute("x2", place);
    cross.setAttribute("visibility", "visible");
    const told = curves.map(({ label, points }) => {
      const [where, value] = points[nearest(points.map(([s]) => s), step)];
      return where === step ? `${label} ${value}` : `${label} ${value} (step ${where.toLocaleString("en")})`;
    });
    output.textContent = [`step ${step.toLocaleString("en")}`, ...told].join(" · ");
  }

  function hide() {
    at = -1;
    cross.setAttribute("visibility", "hidden");
    output.textContent = summary;
  }

  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    show(nearest(steps, low + ((high - low) * (event.clientX - box.left)) / box.width));
  });
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    show(at < 0 ? (by > 0 ? 0 : steps.length - 1) : at + by);
  });
}
