"""Handwritten digits as PNG files: accuracy of a classifier, beside a linear probe and k-NN on the pixels.

The 1,797 digits of scikit-learn, which were written by 43 people; the test files name no writer, so that the
split is by file, and an accuracy is one of writers that are known.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from training import accuracy, trained

from helix_kernel import default_kernel

sys.path.insert(0, str(Path(__file__).parents[1]))

from heading import ROOT, heading

MODELS: dict[str, dict[str, Any]] = {
    "image-patches, mamba": {"use": "image-patches", "patch": 2, "layers": [{"use": "mamba"}] * 2},
    "byte-patches, mamba": {"use": "byte-patches", "patch": 4, "layers": [{"use": "mamba"}] * 2},
}


def written(folder: Path) -> None:
    """Write the digits as files, a folder for each class."""
    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        place = folder / str(label)
        place.mkdir(exist_ok=True)
        Image.fromarray((pixels * 15.9).astype(np.uint8)).save(place / f"{number:04}.png")


def table_of(folder: Path) -> dict[str, Any]:
    """Return the dataset's table."""
    return {
        "use": "file-groups",
        "path": str(folder),
        "files": {"picture": "{name}.png"},
        "modalities": {"picture": {"use": "image", "channels": "grey"}},
        "shapes": {"picture": [1, 8, 8]},
        "task": "classification",
        "batch_size": 32,
        "validation_fraction": 0.3,
    }


def flat(batches: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels and classes of batches."""
    parts = [(batch.inputs["picture"].values.flatten(1).numpy(), batch.targets.numpy()) for batch in batches]
    return np.concatenate([x for x, _ in parts]) / 255, np.concatenate([y for _, y in parts])


def main() -> None:
    """Print the table, or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        written(Path(folder))
        dataset = default_kernel().build("dataset", table_of(Path(folder)))
        n_train = len(dataset._train)
        x, y = flat(dataset._read([concept[0]]) for concept in dataset._train)
        test_x, test_y = flat(dataset.evaluation_batches())
        rows = [
            (
                "linear probe",
                f"{100 * LogisticRegression(max_iter=5000).fit(x, y).score(test_x, test_y):.1f}",
            ),
            ("k-NN, k = 3", f"{100 * KNeighborsClassifier(3).fit(x, y).score(test_x, test_y):.1f}"),
        ]
        for name, encoder in MODELS.items():
            model = {
                "use": "multimodal-classifier",
                "d_model": 64,
                "encoders": {"picture": encoder},
                "n_classes": 10,
            }
            found = [
                100 * accuracy(trained(dataset, model, steps=options.steps, seed=seed, lr=3e-3)[0], dataset)
                for seed in range(options.seeds)
            ]
            rows.append((name, f"{statistics.mean(found):.1f} ({min(found):.1f} to {max(found):.1f})"))
    command = "python tests/benchmarks/multimodal/digits.py --write"
    page = heading("Digits", command, ["helix-multimodal", "helix-ssm", "torch", "scikit-learn"])
    page += (
        f"\nAccuracy in percent on {len(test_y)} held-out digits of 8 by 8 pixels, trained on "
        f"{n_train}; of models, {options.steps} steps of 32, the mean of {options.seeds} seeds and "
        "its range.\n\n| | accuracy |\n|---|---|\n"
    )
    page += "\n".join(f"| {name} | {value} |" for name, value in rows) + "\n"
    print(page)
    if options.write:
        (ROOT / "docs/benchmarks/multimodal-digits.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
