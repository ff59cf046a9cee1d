import copy

import pytest
import torch

from helix_kernel.errors import ArgumentError
from helix_train.optimizers.soap import SOAP


def run(optimizer, weights, n_steps):
    generator = torch.Generator().manual_seed(1)
    for _ in range(n_steps):
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator).to(weight.dtype)
        optimizer.step()


def test_weights_without_a_basis_are_updated_by_adamw_from_the_first_step():
    torch.manual_seed(0)
    drawn = [torch.randn(5), torch.randn(()), torch.randn(7, 8)]
    ours, theirs = ([torch.nn.Parameter(tensor.clone()) for tensor in drawn] for _ in range(2))
    options = {"lr": 0.01, "betas": (0.8, 0.9), "weight_decay": 0.3, "eps": 1e-6}
    run(SOAP(ours, max_dim=6, **options), ours, 5)
    run(torch.optim.AdamW(theirs, **options), theirs, 5)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_the_first_gradient_makes_a_basis_and_moves_no_weight():
    weight = torch.nn.Parameter(torch.ones(3, 2))
    optimizer = SOAP([weight], lr=1.0)
    run(optimizer, [weight], 1)
    assert weight.tolist() == [[1, 1]] * 3
    run(optimizer, [weight], 1)
    assert (weight != 1).all()


def test_axes_that_are_too_long_or_have_one_place_have_no_basis():
    weight = torch.nn.Parameter(torch.zeros(5, 1, 3))
    optimizer = SOAP([weight], max_dim=4)
    run(optimizer, [weight], 3)
    shapes = [None if basis is None else tuple(basis.shape) for basis in optimizer.state[weight]["bases"]]
    assert shapes == [None, None, (3, 3)]
    assert weight.isfinite().all()


def test_bases_stay_orthogonal():
    weight = torch.nn.Parameter(torch.zeros(6, 5))
    optimizer = SOAP([weight], precondition_every=1)
    run(optimizer, [weight], 30)
    for basis in optimizer.state[weight]["bases"]:
        torch.testing.assert_close(basis @ basis.T, torch.eye(len(basis)), rtol=0, atol=1e-5)


def test_a_turned_problem_is_solved_by_the_turned_steps():
    """What Adam lacks: with bases that follow the gradients, a rotation of the weights changes nothing."""
    torch.manual_seed(0)
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
    plain, turned = (torch.nn.Parameter(torch.zeros(4, 3, dtype=torch.float64)) for _ in range(2))
    optimizers = [
        SOAP([weight], lr=0.1, precondition_every=2, weight_decay=0.0) for weight in (plain, turned)
    ]
    for _ in range(9):
        plain.grad = torch.randn(4, 3, dtype=torch.float64)
        turned.grad = turn @ plain.grad
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(turned.detach(), turn @ plain.detach(), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_state_of_16_bit_weights_is_float32_and_stays_so_when_loaded(dtype):
    whole, first = (torch.nn.Parameter(torch.ones(3, 2, dtype=dtype)) for _ in range(2))
    optimizer = SOAP([first], lr=0.1)
    run(optimizer, [first], 4)
    state = optimizer.state[first]
    kept = [state["exp_avg"], state["exp_avg_sq"], *state["bases"], *state["covariances"]]
    assert {tensor.dtype for tensor in kept} == {torch.float32}
    resumed = SOAP([whole], lr=0.1)
    resumed.load_state_dict(optimizer.state_dict())
    state = resumed.state[whole]
    again = [state["exp_avg"], state["exp_avg_sq"], *state["bases"], *state["covariances"]]
    for a, b in zip(kept, again, strict=True):
        assert a.equal(b)
        assert a.dtype == b.dtype


def test_steps_of_a_resumed_optimizer_leave_the_state_that_it_took_on_alone():
    first, second = (torch.nn.Parameter(torch.ones(3, 2)) for _ in range(2))
    optimizer, resumed = SOAP([first], precondition_every=1), SOAP([second], precondition_every=1)
    run(optimizer, [first], 2)
    saved = optimizer.state_dict()
    resumed.load_state_dict(saved)
    kept = copy.deepcopy(saved["state"][0])
    run(resumed, [second], 2)
    for slot, value in kept.items():
        now = saved["state"][0][slot]
        pairs = zip(value, now, strict=True) if isinstance(value, list) else [(value, now)]
        assert all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in pairs), slot


def test_sharded_weights_are_refused():
    weight = torch.nn.Parameter(torch.zeros(2, 2))
    weight.device_mesh = "a mesh"
    with pytest.raises(ArgumentError, match="soap needs whole matrices"):
        SOAP([weight])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": -1.0}, "lr is -1.0, allowed is >= 0"),
        ({"betas": (0.9, 1.0)}, r"betas is \(0.9, 1.0\)"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"precondition_every": 0}, "precondition_every is 0, allowed is >= 1"),
        ({"max_dim": 0}, "max_dim is 0, allowed is >= 1"),
    ],
)
def test_wrong_options_are_said_also_of_groups(options, words):
    weight = torch.nn.Parameter(torch.zeros(1))
    with pytest.raises(ArgumentError, match=words):
        SOAP([weight], **options)
    with pytest.raises(ArgumentError, match=words):
        SOAP([{"params": [weight], **options}])
