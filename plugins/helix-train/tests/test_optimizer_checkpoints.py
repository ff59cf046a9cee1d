"""A run that goes through a checkpoint on disk goes on to the bit, with every optimizer of the plugin."""

import pytest
import torch

from helix_kernel import Kernel
from helix_kernel.checkpoint import CheckpointManager, load
from helix_kernel.nesting import nest
from helix_kernel.plugins import Manifest
from helix_kernel.restore import load_weights
from helix_train import plugin
from helix_train.parts import OPTIMIZERS
from helix_train.state import load_optimizer_state, optimizer_state, parameter_groups

NAMES = [component.name for component in OPTIMIZERS]
EXTRA = {"soap": {"precondition_every": 2}, "sgd": {"momentum": 0.9}}


@pytest.fixture(scope="module")
def kernel():
    ours = Manifest(name="train", provider="helix-train", version="0", module=plugin)
    return Kernel(found=[], manifests=[ours])


@pytest.fixture
def build(kernel):
    def build(name, **options):
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Embedding(5, 4), torch.nn.Conv1d(4, 3, 2), torch.nn.LayerNorm(3), torch.nn.Linear(3, 2)
        )
        table = {"use": name, **EXTRA.get(name, {}), **options}
        return model, kernel.build("optimizer", table, params=parameter_groups(model))

    return build


def run(model, optimizer, steps):
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


def save(folder, model, optimizer):
    state = {"model": nest(model.state_dict()), "optimizer": optimizer_state(optimizer, model)}
    return CheckpointManager(folder).save(3, state)


def restore(path, model, optimizer):
    state = load(path, as_torch=True)
    load_weights(model, state["model"], str(path))
    load_optimizer_state(optimizer, model, state["optimizer"])


@pytest.mark.parametrize("name", NAMES)
def test_going_on_from_a_checkpoint_equals_not_stopping(build, tmp_path, name):
    whole, optimizer = build(name)
    run(whole, optimizer, range(8))
    first, interrupted = build(name)
    run(first, interrupted, range(5))
    second, resumed = build(name, lr=0.7)
    restore(save(tmp_path, first, interrupted), second, resumed)
    run(second, resumed, range(5, 8))
    for key, value in whole.state_dict().items():
        assert second.state_dict()[key].equal(value), key


@pytest.mark.parametrize("name", ["schedule-free-adamw", "schedule-free-sgd"])
def test_a_checkpoint_of_the_average_goes_on_to_the_bit_too(build, tmp_path, name):
    whole, optimizer = build(name)
    run(whole, optimizer, range(8))
    first, interrupted = build(name)
    run(first, interrupted, range(5))
    interrupted.eval()
    second, resumed = build(name)
    restore(save(tmp_path, first, interrupted), second, resumed)
    assert second[3].weight.equal(first[3].weight), "the checkpoint's model is the average"
    resumed.train()
    run(second, resumed, range(5, 8))
    for key, value in whole.state_dict().items():
        assert second.state_dict()[key].equal(value), key


def test_lists_of_preconditioners_are_named_by_slot_and_parameter(build, tmp_path):
    model, optimizer = build("soap")
    run(model, optimizer, range(3))
    saved = load(save(tmp_path, model, optimizer), as_torch=True)["optimizer"]["state"]
    assert [tuple(basis.shape) for basis in saved["bases"]["1"]["weight"]] == [(3, 3), (4, 4), (2, 2)]
    assert saved["bases"]["1"]["weight"][0].equal(optimizer.state[model[1].weight]["bases"][0])
    assert "bias" not in saved["bases"]["1"]
