"""The command `helix topo plot`."""

from __future__ import annotations

import json as _json
from pathlib import Path


def plot(checkpoint: str, /, *, out: str = "pictures", json: bool = False) -> None:
    """Draw the memory that a checkpoint holds, and say what there is to see.

    Writes ``graph.png``, ``stability.png`` and ``links.png``, as far as the memory has these.

    Args:
        checkpoint: A checkpoint, or a run's directory.
        out: The folder for the pictures; made where there is none.
        json: Print one JSON object.
    """
    from helix_kernel.restore import open_model
    from helix_topo.plotting import pictures

    drawn = pictures(open_model(checkpoint, weights="trained").model, Path(out))
    if json:
        print(_json.dumps(drawn))
        return
    for path in drawn["files"]:
        print(path)
    for what in ("graph", "links"):
        for name, value in drawn.get(what, {}).items():
            print(f"{what} {name.replace('_', ' ')}: {value}")
