"""Autocast, and a loss scale that goes as PyTorch's own does."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
import torch

from helix_kernel.checkpoint import load
from helix_train.precision import Precision
from helix_train.progress import Progress


def fit(trainer):
    trainer.fit(Progress(io.StringIO()))


def state(out, step):
    return load(Path(out) / f"checkpoints/step-{step:08d}", as_torch=True)


def test_the_scale_goes_as_that_of_torch_does():
    generator = torch.Generator().manual_seed(3)
    own, theirs = Precision("fp16", "cpu"), torch.amp.GradScaler("cpu", init_scale=2.0**16)
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    theirs.scale(torch.ones(()))
    overflows = torch.rand(5000, generator=generator) < 5e-4
    overflows[:3] = True
    for overflow in overflows.tolist():
        weight.grad = torch.full((2,), math.inf if overflow else 1.0)
        assert own.overflowed(float(weight.grad.norm())) == overflow
        theirs.step(optimizer)
        theirs.update()
        if theirs.get_scale() <= 2.0**24:
            assert own.scale == theirs.get_scale()


def test_the_scale_falls_no_lower_than_one_where_the_trouble_is_another():
    precision = Precision("fp16", "cpu")
    assert [precision.overflowed(math.nan) for _ in range(18)] == [True] * 16 + [False] * 2
    assert precision.scale == 1.0


def test_a_scale_that_has_fallen_to_one_is_that_of_the_resumed_run_too():
    fallen, resumed = Precision("fp16", "cpu"), Precision("fp16", "cpu")
    while fallen.scale > 1.0:
        fallen.overflowed(math.inf)
    fallen.overflowed(1.0)
    resumed.load_state_dict(fallen.state_dict())
    assert resumed.state_dict() == fallen.state_dict()
    assert resumed.scale == 1.0


@pytest.mark.parametrize(
    ("saved", "scale"),
    [
        (Precision("fp32", "cpu").state_dict(), 2.0**16),
        ({"precision": "bf16", "scale": 1.0, "good_steps": 0}, 2.0**16),
        ({"scale": 1.0, "good_steps": 0}, 2.0**16),  # of a version that did not name the format
        ({"scale": 8.0, "good_steps": 5}, 8.0),
    ],
    ids=["fp32", "bf16", "unnamed", "unnamed-fp16"],
)
def test_a_run_that_resumes_in_fp16_has_a_scale_of_fp16(saved, scale):
    resumed = Precision("fp16", "cpu")
    resumed.load_state_dict(saved)
    assert resumed.scale == scale


def test_a_run_that_resumes_in_another_precision_scales_nothing():
    resumed = Precision("bf16", "cpu")
    resumed.load_state_dict(Precision("fp16", "cpu").state_dict())
    assert resumed.scale == 1.0


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_other_precisions_scale_nothing(name):
    precision = Precision(name, "cpu")
    assert not precision.overflowed(math.inf)
    assert precision.scale == 1.0
    assert precision.context().__class__.__name__ == ("nullcontext" if name == "fp32" else "autocast")


def test_unscaled_gradients_are_those_of_the_loss(trainer, tmp_path):
    found = []
    for precision in ("fp32", "fp16"):
        trained = trainer({"trainer.precision": precision, "trainer.out": str(tmp_path / precision)})
        loss = trained.try_loss()
        found.append((loss, [parameter.grad.clone() for parameter in trained.model.parameters()]))
    (one, gradients), (other, scaled) = found
    assert other == pytest.approx(one, rel=1e-2)
    for left, right in zip(gradients, scaled, strict=True):
        torch.testing.assert_close(left, right, rtol=5e-2, atol=1e-4)


def test_a_step_that_overflows_is_left_out_and_a_resume_has_the_same_scale(trainer, tmp_path):
    changes = {"trainer.precision": "fp16", "trainer.steps": 6, "trainer.checkpoint_every": 2}

    def spoiled(out, **more):
        trained = trainer({**changes, "trainer.out": str(tmp_path / out), **more})
        trained.loss.register_forward_hook(
            lambda module, inputs, loss: loss * (math.inf if trained.step == 2 else 1.0)
        )
        return trained

    fit(spoiled("whole"))
    broken = spoiled("broken")
    after_step = broken._after_step

    def die(*values):
        if broken.step == 6:
            raise KeyboardInterrupt
        after_step(*values)

    broken._after_step = die
    with pytest.raises(KeyboardInterrupt):
        fit(broken)
    fit(spoiled("broken", **{"trainer.resume": True}))
    one, other = (state(tmp_path / name, 6) for name in ("whole", "broken"))
    kept = {"precision": "fp16", "scale": 2.0**15, "good_steps": 3}
    assert one["loss_scale"] == other["loss_scale"] == kept
    assert torch.equal(one["model"]["head"]["weight"], other["model"]["head"]["weight"])


def test_activations_that_wait_in_the_hosts_memory_change_no_bit(trainer, tmp_path):
    weights = []
    for offload in (False, True):
        trained = trainer(
            {"trainer.activation_offload": offload, "trainer.out": str(tmp_path / str(offload))}
        )
        fit(trained)
        weights.append(trained.model.head.weight.detach())
    assert torch.equal(*weights)


def test_a_compiled_model_trains_as_the_model_does(trainer, tmp_path, monkeypatch):
    # Whether the compiled code is right is for its authors to test; that it is asked for, once, for us.
    compiled = []

    def compile_(model):
        compiled.append(model)
        return model

    monkeypatch.setattr(torch, "compile", compile_)
    trained = trainer({"trainer.compile": True})
    fit(trained)
    assert compiled == [trained.model]


def test_deterministic_algorithms_are_demanded_for_the_run_alone(trainer):
    seen = []
    trained = trainer({"trainer.deterministic": True, "trainer.steps": 1})
    trained.model.register_forward_hook(lambda *_: seen.append(torch.are_deterministic_algorithms_enabled()))
    fit(trained)
    assert seen[0] is True
    assert not torch.are_deterministic_algorithms_enabled()
