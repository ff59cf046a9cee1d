"""Classes of electronic parts by their 3D models: point-groups beside classic classifiers on raw features.

The data are the models of Debian's kicad-packages3d. A class is a folder: the ten folders of 30 models or
more that have the most families. A family is all models whose names agree up to the first digit; it lies
whole in training or in test, so that no model is tested whose near-duplicate by name was seen. Of a family at
most ten models take part, which the seed picks, as it does the families for test: three in ten of each class.
"""

from __future__ import annotations

import argparse
import collections
import re
import statistics
import sys
import textwrap
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from helix_multimodal.encoders.point_groups import PointGroups
from helix_multimodal.inputs import pad, pool
from helix_multimodal.modalities.point_cloud import PointCloud

sys.path.insert(0, str(Path(__file__).parents[1]))

from heading import ROOT, heading

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

MODELS = Path("/usr/share/kicad/3dmodels")
PAGE = ROOT / "docs" / "benchmarks" / "multimodal-shapes.md"
SEEDS = (0, 1, 2)
N_CLASSES, LEAST_MODELS, MOST_OF_FAMILY, TEST_SHARE = 10, 30, 10, 0.3
N_POINTS, BATCH, STEPS, LR = 512, 32, 500, 1e-3

WAYS = f"""
point-groups: d_model 64, 48 groups of 24, {N_POINTS} of a model's vertices drawn anew each time, mean of the
tokens, a linear head; AdamW, {STEPS} steps of {BATCH}, nothing chosen by the test. The classic ways
(scikit-learn) read the logarithms of a model's extents and how its vertices, at most 2048, spread over a grid
of 8 by 8 by 8; their option is chosen by families left out of training.
"""


@attrs.frozen
class Shape:
    """A model: its class, its family and its points, at most 2048."""

    kind: int
    family: str
    points: NDArray[Any]


@attrs.frozen
class Result:
    """Shares of the test that a way gets right, plainly and as the mean over classes, and its seconds."""

    accuracy: float
    balanced: float
    seconds: float


def main() -> None:
    """Measure, and print the page or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks")
    arguments = parser.parse_args()
    if not MODELS.is_dir():
        sys.exit("the package kicad-packages3d is not installed")
    head = heading(
        "Shapes of electronic parts",
        "OMP_NUM_THREADS=1 python tests/benchmarks/multimodal/shapes.py --write",
        ["helix-multimodal", "torch", "scikit-learn"],
    )
    torch.set_num_threads(1)
    kinds = folders()
    page = head + report(kinds, [measured(kinds, seed) for seed in SEEDS])
    if arguments.write:
        PAGE.write_text(page, encoding="utf-8")
    else:
        sys.stdout.write(page)


def folders() -> list[Path]:
    """Return the folders that are the classes."""
    found = []
    for folder in sorted(MODELS.glob("*.3dshapes")):
        names = [family(path) for path in folder.glob("*.wrl")]
        if len(names) >= LEAST_MODELS:
            found.append((-len(set(names)), folder))
    return sorted(folder for _, folder in sorted(found)[:N_CLASSES])


def family(path: Path) -> str:
    """Return a model's name up to the first digit."""
    return re.match(r"\D*", path.stem).group()  # type: ignore[union-attr]  # an empty match is one too


def measured(kinds: list[Path], seed: int) -> dict[str, Any]:
    """Return the results of all ways by one seed, and how many models each side has."""
    train, test = split(kinds, seed)
    labels = np.array([shape.kind for shape in test])
    ways: dict[str, Callable[[], NDArray[Any]]] = {
        "point-groups": lambda: trained(train, test, seed, place=True),
        "point-groups, place = false": lambda: trained(train, test, seed, place=False),
        "logistic regression": lambda: searched(
            LogisticRegression(max_iter=3000), "logisticregression__C", [0.01, 0.1, 1, 10], train, test
        ),
        "k nearest neighbours": lambda: searched(
            KNeighborsClassifier(), "kneighborsclassifier__n_neighbors", [1, 3, 7, 15], train, test
        ),
        "the most frequent class": lambda: most_frequent(train, test),
    }
    found: dict[str, Any] = {"sizes": (len(train), len(test))}
    for name, way in ways.items():
        began = time.monotonic()
        guess = way()
        seconds = time.monotonic() - began
        accuracy, balanced = float((guess == labels).mean()), balanced_accuracy_score(labels, guess)
        found[name] = Result(accuracy, float(balanced), seconds)
        print(seed, name, found[name], found["sizes"], file=sys.stderr)
    return found


def split(kinds: list[Path], seed: int) -> tuple[list[Shape], list[Shape]]:
    """Return the models to train on and those to test on."""
    draw = np.random.default_rng(seed)
    sides: dict[str, bool] = {}
    train: list[Shape] = []
    test: list[Shape] = []
    modality = PointCloud(max_points=2048)
    for kind, folder in enumerate(kinds):
        of_family = collections.defaultdict(list)
        for path in sorted(folder.glob("*.wrl")):
            of_family[family(path)].append(path)
        names = draw.permutation(sorted(of_family)).tolist()
        for at, name in enumerate(names):
            in_test = sides.setdefault(name, at < TEST_SHARE * len(names))
            for path in draw.permutation(np.array(of_family[name], dtype=object))[:MOST_OF_FAMILY]:
                points = modality.load(path).arrays["points"]
                (test if in_test else train).append(Shape(kind, name, points))
    return train, test


def trained(train: list[Shape], test: list[Shape], seed: int, *, place: bool) -> NDArray[Any]:
    """Train the encoder with a linear head on the mean of its tokens; return the classes of the test."""
    torch.manual_seed(seed)
    draw = np.random.default_rng(seed)
    encoder = PointGroups(64, n_groups=48, k=24, place=place)
    head = nn.Sequential(nn.LayerNorm(64), nn.Dropout(0.3), nn.Linear(64, N_CLASSES))
    parameters = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LR, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=STEPS)
    kinds = torch.tensor([shape.kind for shape in train])
    for _ in range(STEPS):
        rows = draw.choice(len(train), BATCH, replace=False)
        logits = head(pool(encoder(pad([drawn(train[row], draw) for row in rows]))))
        loss = nn.functional.cross_entropy(logits, kinds[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch says no types
        optimizer.step()
        schedule.step()
    head.eval()
    guesses = []
    with torch.no_grad():
        for start in range(0, len(test), BATCH):
            part = [drawn(shape, np.random.default_rng(0)) for shape in test[start : start + BATCH]]
            guesses.append(head(pool(encoder(pad(part)))).argmax(-1))
    found: NDArray[Any] = torch.cat(guesses).numpy()
    return found


def drawn(shape: Shape, draw: np.random.Generator) -> torch.Tensor:
    """Return points of a model, as many as are used, in any order."""
    n_points = min(N_POINTS, len(shape.points))
    return torch.from_numpy(shape.points[draw.choice(len(shape.points), n_points, replace=False)])


def searched(
    model: Any, option: str, values: list[float], train: list[Shape], test: list[Shape]
) -> NDArray[Any]:
    """Fit a classic way, its option picked by families left out of training; return the test's classes."""
    groups = [shape.family for shape in train]
    search = GridSearchCV(
        make_pipeline(StandardScaler(), model),
        {option: values},
        cv=GroupKFold(3),
        scoring="balanced_accuracy",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class may be missing from a fold
        search.fit(features(train), [shape.kind for shape in train], groups=groups)
        found: NDArray[Any] = search.predict(features(test))
    return found


def features(shapes: list[Shape]) -> NDArray[Any]:
    """Return of each model the logarithms of its extents, and the shares of its points in a grid of 8³."""
    rows = []
    for shape in shapes:
        least, most = shape.points.min(0), shape.points.max(0)
        places = (shape.points - (least + most) / 2) / max(float((most - least).max()), 1e-9)
        grid, _ = np.histogramdd(places, bins=8, range=[(-0.5, 0.5)] * 3)
        rows.append([*np.log(most - least + 1e-6), *(grid / len(places)).ravel()])
    return np.array(rows)


def most_frequent(train: list[Shape], test: list[Shape]) -> NDArray[Any]:
    """Return the class of most models in training, for each of the test."""
    kind, _ = collections.Counter(shape.kind for shape in train).most_common(1)[0]
    return np.full(len(test), kind)


def report(kinds: list[Path], results: list[dict[str, Any]]) -> str:
    """Return the page below its head."""
    sizes = ", ".join(f"{train} and {test}" for train, test in (found["sizes"] for found in results))
    about = [
        (__doc__ or "").partition("\n\n")[2],
        (
            f"Classes: {', '.join(folder.name.removesuffix('.3dshapes') for folder in kinds)}. "
            f"Models to train on and to test on, by seed: {sizes}."
        ),
        WAYS,
        f"Cells are the mean over {len(results)} seeds, with the least and the most.",
    ]
    lines = [line for part in about for line in ("", textwrap.fill(" ".join(part.split()), 110))]
    lines += ["", "| way | accuracy | mean over classes | seconds |", "|---|---:|---:|---:|"]
    for name in (name for name in results[0] if name != "sizes"):
        own = [found[name] for found in results]
        cells = [told([getattr(each, what) for each in own]) for what in ("accuracy", "balanced")]
        seconds = statistics.mean(each.seconds for each in own)
        lines.append(f"| {name} | {cells[0]} | {cells[1]} | {seconds:.1f} |")
    return "\n".join([*lines, ""])


def told(shares: list[float]) -> str:
    """Return the mean of shares and their range, in per cent."""
    return f"{100 * statistics.mean(shares):.1f} ({100 * min(shares):.1f} to {100 * max(shares):.1f})"


if __name__ == "__main__":
    main()
