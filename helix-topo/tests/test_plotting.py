from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

from helix_kernel.errors import DependencyError, InputError
from helix_topo import commands
from helix_topo.cycles import Cycles
from helix_topo.motifs.lasting import lasting
from helix_topo.motifs.tier import Motifs
from helix_topo.plotting import pictures, told

TEXT = b"the cat sat on the mat, and the dog sat on the log; " * 40


def remembered(text=TEXT, **options):
    """A memory that has read some text in windows of 64 bytes."""
    motifs, cycles = Motifs(budget=1 << 20, **options), Cycles()
    ids = torch.frombuffer(bytearray(text[: len(text) // 65 * 65]), dtype=torch.uint8).long().reshape(-1, 65)
    for row in ids.split(1):
        found = motifs.advance(row[:, :-1], torch.full((1, 48), -1), write=True, order="stream")
        cycles.advance(found.motif.reshape(1, -1), row[:, 1:], n_symbols=256, write=True)
    cycles.consolidate()
    return torch.nn.ModuleDict({"motifs": motifs, "cycles": cycles})


def is_picture(path):
    data = path.read_bytes()
    return data.startswith(b"\x89PNG") and 5_000 < len(data) < 150_000


def test_a_memory_is_drawn_and_told(tmp_path):
    model = remembered()
    drawn = pictures(model, tmp_path / "new")
    names = ["stability.png", "links.png", "graph.png"]
    assert drawn["files"] == [str(tmp_path / "new" / name) for name in names]
    assert all(is_picture(tmp_path / "new" / name) for name in names)
    assert drawn["graph"]["arcs_on_cycles"] > 20
    links = json.loads(json.dumps(drawn))["links"]
    assert links.keys() == {"U", "I", "S"}
    assert sum(links.values()) == len(lasting(model["motifs"]).stability), "each context is of one class"
    assert links["U"] > 0


def test_what_is_told_of_a_graph_is_true():
    cycles = Cycles()
    ring = torch.tensor([0, 1, 2, 3, 4])
    for _ in range(5):
        cycles.advance(
            torch.cat([ring, ring[:1], torch.tensor([9])])[None],
            torch.zeros(1, 7).long(),
            n_symbols=2,
            write=True,
        )
    cycles.consolidate()
    found = told(cycles.graph)
    assert (found["motifs"], found["arcs"], found["arcs_on_cycles"]) == (6, 6, 5)
    assert (found["components"], found["largest_component"], found["independent_cycles"]) == (1, 5, 1)
    assert found["core_numbers"] == {1: 1, 2: 5}
    assert found["holes"] == [(1 / 5, None)]
    assert found["order_parameter"] == 1.0


def test_contexts_are_all_counted_and_what_recurs_grows_more_stable():
    motifs = Motifs(budget=1 << 20)
    nothing = lasting(motifs)
    assert len(nothing.stability) == len(nothing.age) == 0
    rng = np.random.default_rng(0)
    for seen, after in ((rng.integers(0, 256, 3000), {1.0}), (np.tile(np.arange(60), 60), None)):
        motifs.score(torch.from_numpy(seen.astype(np.int64)))
        known = lasting(motifs)
        assert after is None or np.median(known.stability) in after
    added, evicted = int(motifs.counters[1]), int(motifs.counters[2])
    assert len(known.stability) == added - evicted
    assert known.stability.max() > 2
    assert (known.age >= 0).all()
    assert set(known.width.tolist()) == {20, 9, 4, 1}


def test_what_holds_little_is_drawn_too(tmp_path):
    drawn = pictures(torch.nn.ModuleDict({"motifs": Motifs(budget=1 << 20), "cycles": Cycles()}), tmp_path)
    assert len(drawn["files"]) == 3
    assert drawn["links"] == {"U": 0, "I": 0, "S": 0}
    assert drawn["graph"]["arcs"] == 0
    assert pictures(Cycles(), tmp_path)["files"] == [str(tmp_path / "graph.png")]


def test_a_model_without_a_memory_says_so(tmp_path):
    with pytest.raises(InputError, match=r"\[model.memory\]"):
        pictures(torch.nn.Linear(1, 1), tmp_path)


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(DependencyError, match=r"helix-topo\[plot\]"):
        pictures(remembered(), tmp_path)


def test_the_command_opens_a_checkpoint_and_prints_what_it_drew(tmp_path, monkeypatch, capsys):
    asked = []

    class Opened:
        model = Cycles()

    def open_model(checkpoint, *, weights):
        asked.append((checkpoint, weights))
        return Opened()

    monkeypatch.setattr("helix_kernel.restore.open_model", open_model)
    commands.plot("a run", out=str(tmp_path))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [str(tmp_path / "graph.png"), "graph motifs: 0"]
    assert "graph arcs on cycles: 0" in lines
    commands.plot("a run", out=str(tmp_path), json=True)
    drawn = json.loads(capsys.readouterr().out)
    assert drawn["files"] == lines[:1]
    assert drawn["graph"]["order_parameter"] == 0
    assert asked == [("a run", "trained")] * 2
