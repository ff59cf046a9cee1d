"""Pictures of a memory: its motifs' graph with cycles and cores, how stable it is, and its links by class."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import rustworkx as rx

from helix_kernel.errors import DependencyError, InputError
from helix_topo.analysis import analysed, cycle_basis
from helix_topo.graph import TransitionGraph
from helix_topo.ledger import THRESHOLDS
from helix_topo.links import CLASSES
from helix_topo.motifs.lasting import lasting
from helix_topo.motifs.tier import Motifs
from helix_topo.persistence import persistence
from helix_topo.stability import FACTOR

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from torch import nn

    from helix_topo.analysis import Analysis
    from helix_topo.graph import Arcs
    from helix_topo.links import Link
    from helix_topo.motifs.lasting import Lasting

_N_MOTIFS = 45
_N_FOR_HOLES = 2000
_THRESHOLDS = dict(zip(CLASSES, pairwise((0.0, *THRESHOLDS, np.inf)), strict=True))
"""Classes of links by stability, in units of a new entry's: those of `helix_topo.ledger.Ledger`."""


def pictures(model: nn.Module, folder: Path) -> dict[str, Any]:
    """Draw the memory in a model, and say what there is to see.

    Args:
        model: A module that holds a `TransitionGraph`, `Motifs`, or both.
        folder: Where the pictures go: ``graph.png``, ``stability.png`` and ``links.png``, as far as there is
            something to draw.

    Returns:
        What was drawn (``files``), and numbers: ``graph`` and ``links``.

    Raises:
        InputError: The model has no memory.
        DependencyError: matplotlib is not installed.
    """
    graphs = [each for each in model.modules() if isinstance(each, TransitionGraph)]
    motifs = [each for each in model.modules() if isinstance(each, Motifs)]
    if not graphs and not motifs:
        raise InputError("the model has no memory to draw: [model.memory] of its config says which it has")
    drawn: dict[str, Any] = {"files": []}
    if motifs:
        known = lasting(motifs[0])
        drawn["links"] = {link: int(_of_class(known, link).sum()) for link in _THRESHOLDS}
        drawn["files"] += [_saved(_stability, known, folder / "stability.png")]
        drawn["files"] += [_saved(_links, known, folder / "links.png")]
    if graphs:
        graph = max(graphs, key=lambda each: int((each.count > 0).sum()))
        drawn["graph"] = told(graph)
        drawn["files"] += [_saved(_graph, graph.arcs(least=graph.least), folder / "graph.png")]
    return drawn


def told(graph: TransitionGraph) -> dict[str, Any]:
    """Return numbers of a graph's arcs that were seen often enough: its shape as it is now.

    ``holes`` are the longest-lived classes of H1 of the 2,000 strongest arcs: (birth, death) in 1 / count.
    """
    arcs = graph.arcs(least=graph.least)
    found = analysed(arcs.source, arcs.target)
    sizes = np.bincount(found.component[found.cyclic]) if found.cyclic.any() else np.zeros(0, np.int64)
    strongest = np.argsort(-arcs.count, kind="stable")[:_N_FOR_HOLES]
    holes = persistence(arcs.source[strongest], arcs.target[strongest], arcs.count[strongest])
    order = graph.synchrony().order
    return {
        "motifs": len(found.nodes),
        "arcs": len(arcs.count),
        "arcs_on_cycles": int((arcs.component >= 0).sum()),
        "components": int((sizes > 0).sum()),
        "largest_component": int(sizes.max(initial=0)),
        "independent_cycles": len(cycle_basis(arcs.source, arcs.target)),
        "core_numbers": {
            int(k): int(n) for k, n in zip(*np.unique(found.core, return_counts=True), strict=True)
        },
        "holes": [
            (float(birth), None if np.isinf(death) else float(death))
            for birth, death in zip(holes.birth[:10], holes.death[:10], strict=True)
        ],
        "order_parameter": round(float(order.max(initial=0.0)), 4),
    }


def _saved(draw: Any, what: Any, path: Path) -> str:
    """Draw one picture and write it."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyError("drawing needs matplotlib: pip install 'helix-topo[plot]'") from error
    figure = Figure(figsize=(7.0, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure.add_subplot(), what)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, metadata={"Software": None})
    return str(path)


def _graph(axes: Axes, arcs: Arcs) -> None:
    """Draw the densest part of the largest component: arcs on cycles dark, motifs by their core numbers."""
    axes.set_axis_off()
    axes.set_title(f"Around the core of {len(arcs.count):,} arcs; on each the symbol that leads along it")
    shape = analysed(arcs.source, arcs.target)
    densest = _densest(shape, arcs)
    cyclic = shape.component[shape.places(arcs.source)] == shape.component[shape.places(arcs.target)]
    shown = np.flatnonzero(np.isin(arcs.source, densest) & np.isin(arcs.target, densest))
    if not len(shown):
        return
    part = analysed(arcs.source[shown], arcs.target[shown])
    tails, heads = part.places(arcs.source[shown]), part.places(arcs.target[shown])
    places = _layout(len(part.nodes), tails, heads)
    for tail, head, symbol, on_cycle in zip(
        tails, heads, arcs.symbol[shown].tolist(), cyclic[shown], strict=True
    ):
        if tail != head:
            _arrow(axes, places[tail], places[head], symbol, on_cycle=bool(on_cycle))
    core = shape.core[shape.places(part.nodes)]
    dots = axes.scatter(
        places[:, 0], places[:, 1], c=core, cmap="viridis", s=60, zorder=3, edgecolors="white"
    )
    assert axes.figure is not None
    axes.figure.colorbar(dots, ax=axes, label="core number", ticks=np.unique(core).tolist(), shrink=0.7)


def _densest(shape: Analysis, arcs: Arcs) -> NDArray[np.int64]:
    """Return motifs on the shortest cycles through the densest one of the largest component."""
    if not shape.cyclic.any():
        return shape.nodes[:_N_MOTIFS]
    largest = np.bincount(shape.component[shape.cyclic]).argmax()
    tails, heads = shape.places(arcs.source), shape.places(arcs.target)
    inside = (shape.component[tails] == largest) & (shape.component[heads] == largest)
    back: rx.PyDiGraph[int, None] = rx.PyDiGraph()
    back.add_nodes_from(range(len(shape.nodes)))
    back.add_edges_from_no_data(list(zip(heads[inside].tolist(), tails[inside].tolist(), strict=True)))
    first = int(np.flatnonzero(shape.component == largest)[shape.core[shape.component == largest].argmax()])
    # From each motif that comes after the first, the shortest way back to it closes a cycle.
    paths = rx.dijkstra_shortest_paths(back, first, default_weight=1.0)
    after = {node for node in back.predecessor_indices(first) if node != first}
    around = {first: None}
    for node in sorted(after, key=lambda node: (len(paths[node]), node)):
        if len(around) < _N_MOTIFS:
            around |= dict.fromkeys(paths[node])
    return shape.nodes[sorted(around)]


def _layout(n_nodes: int, tails: Any, heads: Any) -> Any:
    """Return a place (n, 2) for each node."""
    graph: rx.PyGraph[int, None] = rx.PyGraph()
    graph.add_nodes_from(range(n_nodes))
    graph.add_edges_from_no_data(list(zip(tails.tolist(), heads.tolist(), strict=True)))
    found = rx.spring_layout(graph, seed=0, num_iter=500, k=1.5 / np.sqrt(n_nodes))
    return np.array([found[node] for node in range(n_nodes)])


def _arrow(axes: Axes, start: Any, end: Any, symbol: int, *, on_cycle: bool) -> None:
    colour = "#333333" if on_cycle else "#c8c8c8"
    style = {"arrowstyle": "-|>", "color": colour, "lw": 1.1, "shrinkA": 4, "shrinkB": 4}
    arrow = axes.annotate("", end, start, arrowprops={**style, "connectionstyle": "arc3,rad=0.12"})
    arrow.set_in_layout(False)  # to measure all of them takes longer than to draw them
    if on_cycle:
        text = repr(chr(symbol))[1:-1] if symbol < 128 else f"{symbol:#x}"
        x, y = (start + end) / 2
        axes.text(x, y, text, fontsize=9, color="#a03020", ha="center", va="center", zorder=4)


def _stability(axes: Axes, known: Lasting) -> None:
    """Draw the contexts by how stable they are and how long ago they were written."""
    axes.set(xlabel="time since it was written (a new context's half-life is 1)", ylabel="stability")
    axes.set_yscale("log", base=2)
    axes.set_title(f"How stable {len(known.stability):,} contexts are, and when they were last written")
    stability = np.log2(known.stability)
    if not len(stability):
        return
    counts, x, y = np.histogram2d(known.age, stability, bins=(40, np.arange(-3.25, 13, 0.5)))
    mesh = axes.pcolormesh(x, 2.0**y, np.ma.masked_equal(counts.T, 0), norm="log", cmap="Blues")
    assert axes.figure is not None
    axes.figure.colorbar(mesh, ax=axes, label="contexts")
    ages = np.linspace(0, x[-1], 200)
    for retrievability, style in ((0.9, "-"), (0.5, "--")):
        # R = (1 + 19/81 · age / S)^(-1/2), for S
        needed = FACTOR * ages / (retrievability**-2 - 1)
        axes.plot(ages[1:], needed[1:], style, color="#a03020", lw=1, label=f"R = {retrievability:g}")
    axes.set_ylim(2.0**-3.25, 2.0 ** max(5.0, stability.max() + 0.5))
    axes.legend(loc="upper right", fontsize=8)


def _links(axes: Axes, known: Lasting) -> None:
    """Draw how many contexts are of each class, by how much room they have for next symbols."""
    axes.set(xlabel="class of the link", ylabel="contexts")
    axes.set_title("Links by class: unstable, intermediate, stable")
    bottom = np.zeros(len(_THRESHOLDS))
    for place, width in enumerate(np.unique(known.width)[::-1].tolist()):
        of_width = known.width == width
        heights = np.array([(_of_class(known, link) & of_width).sum() for link in _THRESHOLDS])
        label = f"room for {width} next symbol{'s' * (width > 1)}"
        colour = ("#1f3b57", "#3f78a8", "#82b4d6", "#c9dfee")[place % 4]
        axes.bar(list(_THRESHOLDS), heights, bottom=bottom, label=label, color=colour)
        bottom += heights
    if len(known.width):
        axes.legend(fontsize=8)


def _of_class(known: Lasting, link: Link) -> Any:
    low, high = _THRESHOLDS[link]
    return (known.stability >= low) & (known.stability < high)
