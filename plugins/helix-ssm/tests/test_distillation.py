"""Hyena layers made recurrent: how exact, as stated; and the command that does it to a checkpoint."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from helix_kernel import checkpoint, default_kernel, load_model
from helix_kernel.cli import main
from helix_kernel.config import resolve_document
from helix_kernel.errors import ArgumentError
from helix_kernel.nesting import nest
from helix_ssm.distillation import distil
from helix_ssm.layers.hyena import Hyena
from helix_ssm.layers.modal_filter import ModalFilter
from helix_ssm.layers.s4d import S4D


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return Hyena(4, time_scale=32.0).eval()


def test_errors_are_those_of_the_impulse_responses(layer):
    """Each filter alone, its skip weight included, by an impulse through the layer's own convolutions."""
    distilled = distil(layer, d_state=8, n_lags=128)
    assert isinstance(distilled.model.filter, ModalFilter)
    assert distilled.n_lags == 128
    assert [(error.layer, error.index) for error in distilled.errors] == [("", 0), ("", 1)]

    def responses(hyena):
        h = hyena.filter(128).double().detach()
        h[..., 0] += hyena.D.double().detach()
        return h.numpy()

    wanted, found = responses(layer), responses(distilled.model)
    alone = layer.filter(128).detach().numpy()
    for error in distilled.errors:
        difference = (found - wanted)[error.index]
        l2 = np.linalg.norm(difference, axis=-1) / np.linalg.norm(alone[error.index], axis=-1)
        largest = np.abs(difference).max(-1) / np.abs(alone[error.index]).max(-1)
        np.testing.assert_allclose(error.relative_l2, l2, rtol=1e-3, atol=1e-7)
        np.testing.assert_allclose(error.relative_max, largest, rtol=1e-3, atol=1e-7)
        assert 1e-5 < max(error.relative_l2) < 0.5


def test_outputs_come_closer_as_states_grow(layer):
    x = torch.randn(2, 100, 4)
    expected, errors = layer(x), []
    for d_state in (4, 8, 16, 32):
        twin = distil(layer, d_state=d_state, n_lags=200).model
        errors.append((twin(x) - expected).norm() / expected.norm())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3


def test_the_twin_is_a_layer_of_constant_state(layer):
    twin = distil(layer, d_state=8, n_lags=64).model
    x, state, outputs = torch.randn(2, 40, 4), twin.init_state(2), []
    shapes = [tensor.shape for tensor in state.long]
    for t in range(40):
        y, state = twin.step(x[:, t], state)
        outputs.append(y)
    assert [tensor.shape for tensor in state.long] == shapes == [(2, 4, 4, 2)] * 2
    torch.testing.assert_close(torch.stack(outputs, 1), twin(x), rtol=1e-5, atol=1e-5)


def test_the_given_model_stays_as_it_is(layer):
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    distil(layer, d_state=4, n_lags=64)
    assert layer.state_dict().keys() == before.keys()
    assert all(tensor.equal(before[name]) for name, tensor in layer.state_dict().items())


def test_every_hyena_of_a_model_is_replaced():
    model = nn.Sequential(Hyena(4), S4D(4), Hyena(4, order=1), Hyena(4, filter="modal"))
    distilled = distil(model, d_state=4, n_lags=33)
    assert [(error.layer, error.index) for error in distilled.errors] == [("0", 0), ("0", 1), ("2", 0)]
    assert all(isinstance(distilled.model[i].filter, ModalFilter) for i in (0, 2, 3))


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (S4D(4), {}, "model is a S4D without implicit filters"),
        (Hyena(4, filter="modal"), {}, "without implicit filters"),
        (Hyena(4), {"d_state": 5}, "d_state is 5, allowed is an even number"),
        (Hyena(4), {"d_state": 0}, "d_state is 0, allowed is >= 2"),
        (Hyena(4), {"d_state": 8, "n_lags": 16}, "n_lags is 16, allowed is >= 17 for 4 modes"),
    ],
)
def test_what_cannot_be_distilled_is_refused(model, options, message):
    with pytest.raises(ArgumentError, match=message):
        distil(model, **options)


@pytest.fixture
def run(tmp_path):
    """Save an untrained Hyena model as a run would; returns its directory and the model."""
    mixer = {"use": "hyena", "time_scale": 16.0}
    table = {"use": "language-model", "d_model": 8, "n_layers": 2, "mixer": mixer}
    config = resolve_document({"model": table}, kernel=default_kernel())
    torch.manual_seed(0)
    model = default_kernel().build("layer", config["model"]).eval()
    attributes = {"step": 7, "config": config.to_dict(), "components": config.versions()}
    state = {"model": nest(model.state_dict()), "optimizer": {}, "step": 7}
    checkpoint.save(tmp_path / "run/checkpoints/step-00000007", state, attributes=attributes)
    return tmp_path / "run", model


@pytest.fixture
def helix(capsys, tmp_path, monkeypatch):
    """Run the command; returns its exit code, standard output and error."""
    monkeypatch.setenv("HELIX_CACHE_DIR", str(tmp_path / "cache"))

    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return ended.value.code, *capsys.readouterr()

    return call


def test_the_command_writes_a_checkpoint_that_opens(helix, run, tmp_path):
    directory, model = run
    code, out, err = helix(
        "distil", directory, tmp_path / "new", "--d-state", "16", "--n-lags", "65", "--json"
    )
    assert code == 0, err
    told = json.loads(out)
    assert told["checkpoint"] == str(tmp_path / "new/checkpoints/step-00000007")
    assert [(row["layer"], row["filter"]) for row in told["filters"]] == [
        ("blocks.0.mixer", 0),
        ("blocks.0.mixer", 1),
        ("blocks.1.mixer", 0),
        ("blocks.1.mixer", 1),
    ]
    assert all(len(row["relative_l2"]) == len(row["relative_max"]) == 8 for row in told["filters"])
    twin = load_model(tmp_path / "new")
    assert all(isinstance(block.mixer.filter, ModalFilter) for block in twin.blocks)
    ids = torch.randint(256, (2, 60))
    torch.testing.assert_close(twin(ids), model(ids), rtol=0.05, atol=0.05)
    attributes = checkpoint.Checkpoint.open(told["checkpoint"]).attributes
    assert attributes["step"] == 7
    assert attributes["config"]["model"]["mixer"]["filter"] == "modal"
    assert attributes["config"]["model"]["mixer"]["d_state"] == 16
    assert attributes["distilled"]["n_lags"] == 65


def test_the_command_prints_a_row_for_each_filter(helix, run, tmp_path):
    code, out, err = helix("distil", run[0], tmp_path / "new", "--d-state", "4", "--n-lags", "33")
    assert code == 0, err
    title, columns, *rows = out.splitlines()
    assert "over 33 lags" in title
    assert " ".join(columns.split()) == "layer filter l2 median l2 worst max median max worst"
    assert len(rows) == 4
    for row in rows:
        layer, index, *errors = row.split()
        assert layer.startswith("blocks.")
        assert index in "01"
        assert all(0 < float(error) < 1.5 for error in errors)


def test_the_command_refuses_what_cannot_be_distilled(helix, run, tmp_path):
    code, _, err = helix("distil", run[0], tmp_path / "new", "--d-state", "3")
    assert code == 2
    assert "d_state is 3, allowed is an even number" in err
    assert not (tmp_path / "new").exists()
