"""The picture of a run."""

from __future__ import annotations

import subprocess
import sys

import pytest

from helix_train.plot import draw_loss_curve

PNG = b"\x89PNG\r\n\x1a\n"
TRAINING = [{"step": step, "loss": 2.0 / step, "bits_per_byte": 2.9 / step} for step in range(1, 9)]
HELD_OUT = [{"step": 8, "validation_loss": 0.5, "validation_bits_per_byte": 0.7}]


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draw records; returns the label of the y axis, and the curves by label."""
    figure = pytest.importorskip("matplotlib.figure")
    saved = []
    monkeypatch.setattr(figure.Figure, "savefig", lambda self, path, dpi: saved.append(self))

    def draw(records):
        draw_loss_curve(records, tmp_path / "loss.png")
        (axes,) = saved.pop().axes
        return axes.get_ylabel(), {line.get_label(): line.get_xydata().tolist() for line in axes.lines}

    return draw


@pytest.mark.parametrize("records", [TRAINING + HELD_OUT, HELD_OUT, []], ids=["both", "held-out", "none"])
def test_a_picture_is_written_whatever_there_is_to_show(tmp_path, records):
    pytest.importorskip("matplotlib")
    path = tmp_path / "loss.png"
    assert draw_loss_curve(records, path) == path
    assert path.read_bytes().startswith(PNG)


def test_both_curves_are_in_bits_where_training_is(drawn):
    unit, curves = drawn(TRAINING + HELD_OUT)
    assert unit == "bits per byte"
    assert curves["training"][:2] == [[1, 2.9], [2, 1.45]]
    assert curves["held out"] == [[8, 0.7]]


def test_otherwise_both_show_the_loss(drawn):
    unit, curves = drawn([{"step": 1, "loss": 3.0}, *HELD_OUT])
    assert unit == "loss"
    assert curves == {"training": [[1, 3.0]], "held out": [[8, 0.5]]}


def test_without_matplotlib_there_is_no_picture(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert draw_loss_curve(TRAINING, tmp_path / "loss.png") is None
    assert list(tmp_path.iterdir()) == []


def test_drawing_leaves_matplotlibs_global_state_alone(tmp_path):
    pytest.importorskip("matplotlib")
    code = (
        "import sys, pathlib, matplotlib\n"
        "parameters = lambda: dict(dict.items(matplotlib.rcParams))\n"  # looking at one may set the backend
        "before = parameters()\n"
        "from helix_train.plot import draw_loss_curve\n"
        f"draw_loss_curve({TRAINING!r}, pathlib.Path({str(tmp_path / 'loss.png')!r}))\n"
        "print('matplotlib.pyplot' in sys.modules, parameters() == before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False True"
