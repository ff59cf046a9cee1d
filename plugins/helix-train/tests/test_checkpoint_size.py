"""The size of a checkpoint is known before a step is taken, as the checkpoint after it shows."""

from __future__ import annotations

import io
from collections import defaultdict

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves

from helix_kernel.checkpoint import load
from helix_kernel.errors import InputError
from helix_kernel.nesting import flatten
from helix_train.checkpoint_size import checkpoint_size, moments_size
from helix_train.dry_run import dry_run
from helix_train.parts import OPTIMIZERS
from helix_train.progress import Progress

EMA = {"trainer.callbacks": [{"use": "ema"}]}


def foreseen(trained):
    return checkpoint_size(trained.state(), trained.model, trained.optimizer)


def arrays_of(trained, step):
    """Return the bytes of all arrays of a checkpoint."""
    saved = load(trained.out / f"checkpoints/step-{step:08d}")
    names = saved.keys() & {"model", "optimizer", "averaged", "rng"}
    found = flatten({name: saved[name] for name in names})
    return sum(value.nbytes for value in found.values() if isinstance(value, np.ndarray | np.generic))


@pytest.mark.parametrize("name", [component.name for component in OPTIMIZERS])
def test_what_an_optimizer_will_keep_is_what_it_keeps_after_a_step(trainer, name):
    own = {"optimizer.momentum": 0.9} if name == "sgd" else {}
    trained = trainer({"optimizer.use": name, **own})
    generator = torch.get_rng_state()
    foretold = moments_size(trained.optimizer)
    assert torch.equal(torch.get_rng_state(), generator)
    assert trained.optimizer.state == {}
    trained.try_loss()
    trained.optimizer.step()
    slots = tree_leaves(dict(trained.optimizer.state))
    assert foretold == sum(value.nbytes for value in slots if isinstance(value, torch.Tensor)) > 0


@pytest.mark.parametrize("changes", [{}, EMA, {"optimizer.use": "schedule-free-adamw"}])
def test_a_run_that_begins_knows_the_size_of_its_checkpoints(trainer, changes):
    trained = trainer({**changes, "trainer.steps": 1})
    foretold = foreseen(trained)
    trained.fit(Progress(io.StringIO()))
    assert foreseen(trained) == foretold
    place_in_the_data = 8
    assert foretold == arrays_of(trained, 1) + place_in_the_data
    assert foretold == dry_run(trainer({**changes, "trainer.out": "elsewhere"}), steps=2).checkpoint_size


def test_a_disk_that_has_room_for_the_weights_alone_is_full_before_anything_begins(trainer, monkeypatch):
    trained = trainer()
    weights = sum(parameter.nbytes for parameter in trained.model.parameters())
    monkeypatch.setattr("helix_train.failures.disk_free", lambda path: 2 * weights)
    with pytest.raises(InputError, match="make room"):
        trained.fit(Progress(io.StringIO()))


def test_an_optimizer_that_takes_no_step_without_memory_counts_as_nothing():
    class Foreign(torch.optim.SGD):
        def step(self):
            if any(parameter.is_meta for group in self.param_groups for parameter in group["params"]):
                raise NotImplementedError("no kernel for such tensors")

    optimizer = Foreign([torch.nn.Parameter(torch.zeros(3))], lr=0.1)
    assert moments_size(optimizer) == 0
    assert optimizer.state == defaultdict(dict)
