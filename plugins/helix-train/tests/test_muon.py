import math

import numpy as np
import optimizer_formulas as formulas
import pytest
import torch

from helix_kernel.errors import ArgumentError
from helix_train.optimizers.muon import Muon, is_matrix, mark_tables, newton_schulz


@pytest.mark.parametrize("shape", [(6, 6), (3, 8), (8, 3), (64, 16)])
def test_newton_schulz_is_its_polynomial_of_the_singular_values(shape):
    torch.manual_seed(0)
    matrices = torch.randn(3, *shape, dtype=torch.float64)
    expected = np.stack([formulas.orthogonal(matrix) for matrix in matrices.numpy()])
    np.testing.assert_allclose(newton_schulz(matrices).numpy(), expected, rtol=1e-9, atol=1e-11)


def test_newton_schulz_brings_singular_values_near_one():
    values = torch.logspace(-2, 0, 50, dtype=torch.float64)
    made = newton_schulz(torch.diag(values / values.norm())[None])[0].diagonal()
    reached = made[values / values.norm() >= 0.01]
    assert len(reached) > 25
    assert 0.68 < reached.min() < reached.max() < 1.14


def test_newton_schulz_of_nothing_is_nothing():
    assert newton_schulz(torch.zeros(1, 3, 2)).tolist() == [[[0, 0]] * 3]


def test_low_precision_is_computed_in_float32_or_as_asked_in_bfloat16():
    matrices = torch.ones(1, 2, 2, dtype=torch.float16)
    assert newton_schulz(matrices).dtype == torch.float32
    assert newton_schulz(matrices.double(), precision="bf16").dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((3, 2), True), ((4, 2, 3), True), ((3,), False), ((), False), ((1, 5), False), ((5, 1, 4), False)],
)
def test_what_counts_as_a_matrix(shape, expected):
    assert is_matrix(torch.zeros(shape)) == expected


def test_complex_and_marked_weights_are_no_matrices():
    assert not is_matrix(torch.zeros(3, 2, dtype=torch.complex64))
    kept = torch.zeros(3, 2)
    kept._no_weight_decay = True
    assert not is_matrix(kept)


def test_embeddings_and_heads_are_marked():
    model = torch.nn.Sequential(torch.nn.Embedding(5, 4), torch.nn.Linear(4, 4))
    model.add_module("head", torch.nn.Linear(4, 5, bias=False))
    mark_tables(model)
    assert [is_matrix(weight) for weight in model.parameters() if weight.dim() == 2] == [False, True, False]


def test_what_is_no_matrix_is_updated_by_adamw_at_its_own_rate():
    torch.manual_seed(0)
    shapes = [(5,), (), (4, 1, 3), (3, 2)]
    drawn = [torch.randn(shape) for shape in shapes]
    ours, theirs = ([torch.nn.Parameter(tensor.clone()) for tensor in drawn] for _ in range(2))
    ours[-1]._is_table = True
    muon = Muon(ours, lr=0.2, adamw_lr_factor=0.1, weight_decay=0.3, betas=(0.8, 0.9), eps=1e-6)
    adamw = torch.optim.AdamW(theirs, lr=0.02, weight_decay=0.3, betas=(0.8, 0.9), eps=1e-6)
    for _ in range(5):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape)
            b.grad = a.grad.clone()
        muon.step()
        adamw.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_a_matrix_moves_by_the_rate_whatever_the_size_of_its_gradient():
    for size in (1e-3, 1.0, 1e3):
        weight = torch.nn.Parameter(torch.zeros(4, 4))
        weight.grad = size * torch.eye(4)
        Muon([weight], lr=0.5).step()
        assert weight.diagonal().abs().sub(0.5).abs().max() < 0.5 * 0.35


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this PyTorch has no Muon")
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("scale", ["original", "match-rms-adamw"])
@pytest.mark.parametrize("shape", [(4, 4), (3, 8), (8, 3)])
def test_torchs_own_gives_the_same_in_bfloat16(shape, scale, nesterov):
    torch.manual_seed(0)
    own, other = (torch.nn.Parameter(torch.ones(shape)) for _ in range(2))
    ours = Muon([own], lr=0.1, weight_decay=0.2, nesterov=nesterov, scale=scale, precision="bf16")
    theirs = torch.optim.Muon(
        [other], lr=0.1, weight_decay=0.2, nesterov=nesterov, adjust_lr_fn=scale.replace("-", "_")
    )
    for _ in range(10):
        own.grad = torch.randn(shape)
        other.grad = own.grad.clone()
        ours.step()
        theirs.step()
    # Ten steps, each of which bfloat16 rounds to 8 bits.
    torch.testing.assert_close(own, other, rtol=0, atol=10 * 0.1 * math.sqrt(8) / 2**8)


def test_sharded_weights_are_refused():
    weight = torch.nn.Parameter(torch.zeros(2, 2))
    weight.device_mesh = "a mesh"
    with pytest.raises(ArgumentError, match=r"is a DTensor.* muon needs whole matrices; train with DDP"):
        Muon([weight])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": -1.0}, "lr is -1.0, allowed is >= 0"),
        ({"momentum": 1.0}, "momentum is 1.0, allowed is >= 0 and < 1"),
        ({"newton_schulz_steps": 0}, "newton_schulz_steps is 0, allowed is >= 1 and < 100"),
        ({"scale": "originl"}, r"scale is 'originl'.*Did you mean 'original'\?"),
        ({"precision": "bf32"}, "precision is 'bf32', allowed is one of"),
        ({"betas": (0.9, 1.0)}, r"betas is \(0.9, 1.0\)"),
        ({"adamw_lr_factor": -0.1}, "adamw_lr_factor is -0.1"),
        ({"eps": math.nan}, "eps is nan"),
    ],
)
def test_wrong_options_are_said_also_of_groups(options, words):
    weight = torch.nn.Parameter(torch.zeros(1))
    with pytest.raises(ArgumentError, match=words):
        Muon([weight], **options)
    with pytest.raises(ArgumentError, match=words):
        Muon([{"params": [weight], **options}])
