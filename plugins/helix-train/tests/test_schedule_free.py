import copy

import pytest
import torch

from helix_kernel.errors import ArgumentError
from helix_train.optimizers.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD

BOTH = pytest.mark.parametrize("make", [ScheduleFreeAdamW, ScheduleFreeSGD])


def weights(dtype=torch.float32):
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, dtype=dtype)) for shape in [(100, 100), (5,)]]


def run(optimizer, parameters, steps):
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
        optimizer.step()
    return [parameter.detach().clone() for parameter in parameters]


def equal(left, right):
    return all(map(torch.equal, left, right))


@BOTH
def test_looking_at_the_average_changes_no_bit_of_the_training(make):
    plain, watched = weights(), weights()
    optimizer, other = make(plain, lr=0.3), make(watched, lr=0.3)
    for step in range(10):
        run(optimizer, plain, [step])
        run(other, watched, [step])
        other.eval()
        assert not equal(watched, plain) or step == 0
        other.train()
        assert equal(watched, plain)


@BOTH
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_state_saved_in_either_mode_goes_on_to_the_bit(make, mode):
    whole = weights()
    expected = run(make(whole, lr=0.01, weight_decay=0.1), whole, range(10))
    first = weights()
    interrupted = make(first, lr=0.01, weight_decay=0.1)
    run(interrupted, first, range(5))
    getattr(interrupted, mode)()
    second = copy.deepcopy(first)
    resumed = make(second, lr=0.7)
    resumed.load_state_dict(copy.deepcopy(interrupted.state_dict()))
    for group in resumed.param_groups:
        assert group["training"] == (mode == "train")
    resumed.train()
    assert equal(run(resumed, second, range(5, 10)), expected)


@BOTH
def test_each_mode_may_be_asked_for_twice(make):
    parameters = weights()
    optimizer = make(parameters, lr=0.01)
    y = run(optimizer, parameters, range(4))
    optimizer.eval()
    x = [parameter.detach().clone() for parameter in parameters]
    optimizer.eval()
    assert equal(parameters, x)
    optimizer.train()
    optimizer.train()
    assert equal(parameters, y)
    assert all("y" not in state for state in optimizer.state.values()), "the copy of y stays in memory"


@BOTH
def test_a_step_at_the_average_is_refused(make):
    parameters = weights()
    optimizer = make(parameters)
    optimizer.eval()
    with pytest.raises(ArgumentError, match=r"call optimizer.train\(\) first"):
        run(optimizer, parameters, [0])


@BOTH
def test_weights_that_never_had_a_gradient_stay_in_either_mode(make):
    moving, still = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    optimizer = make([moving, still])
    run(optimizer, [moving], range(3))
    optimizer.eval()
    assert still.tolist() == [1, 1]


def test_the_average_of_a_constant_rate_is_the_mean_of_the_steps():
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = ScheduleFreeSGD([weight], lr=0.5)
    for _ in range(4):
        weight.grad = torch.ones(1, dtype=torch.float64)
        optimizer.step()
    optimizer.eval()
    assert weight.item() == pytest.approx(-0.5 * (1 + 2 + 3 + 4) / 4)


@pytest.mark.parametrize("foreach", [False, True])
def test_complex_weights_are_pairs(foreach):
    pairs = torch.nn.Parameter(torch.ones(2, 2, dtype=torch.float64))
    whole = torch.nn.Parameter(torch.view_as_complex(torch.ones(2, 2, dtype=torch.float64)))
    optimizers = [ScheduleFreeAdamW([weight], lr=0.1, foreach=foreach) for weight in (pairs, whole)]
    for step in range(3):
        pairs.grad = torch.tensor([[1.0, -2.0], [step, 4.0]], dtype=torch.float64)
        whole.grad = torch.view_as_complex(pairs.grad.clone())
        for optimizer in optimizers:
            optimizer.step()
    for optimizer in optimizers:
        optimizer.eval()
    torch.testing.assert_close(torch.view_as_real(whole), pairs, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (ScheduleFreeAdamW, {"lr": -1.0}, "lr is -1.0, allowed is >= 0"),
        (ScheduleFreeAdamW, {"betas": (0.9, 1.0)}, r"betas is \(0.9, 1.0\)"),
        (ScheduleFreeAdamW, {"betas": (0.0, 0.9)}, "must be > 0 and < 1"),
        (ScheduleFreeAdamW, {"eps": -1.0}, "eps is -1.0"),
        (ScheduleFreeSGD, {"momentum": 0.0}, "momentum is 0.0; the share .* must be > 0 and < 1"),
        (ScheduleFreeSGD, {"weight_decay": -1.0}, "weight_decay is -1.0"),
    ],
)
def test_wrong_options_are_said_also_of_groups(make, options, words):
    weight = torch.nn.Parameter(torch.zeros(1))
    with pytest.raises(ArgumentError, match=words):
        make([weight], **options)
    with pytest.raises(ArgumentError, match=words):
        make([{"params": [weight], **options}])


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("name", ["AdamW", "SGD"])
def test_the_authors_package_gives_the_same_with_a_warmup(name, foreach):
    theirs = pytest.importorskip("schedulefree", reason="the authors' package is not installed")
    own, other = weights(torch.float64), weights(torch.float64)
    ours = {"AdamW": ScheduleFreeAdamW, "SGD": ScheduleFreeSGD}[name](own, weight_decay=0.1, foreach=foreach)
    peer = getattr(theirs, f"{name}ScheduleFree")(
        other, lr=0.02, weight_decay=0.1, warmup_steps=5, foreach=foreach
    )
    peer.train()
    for step in range(20):
        ours.param_groups[0]["lr"] = 0.02 * min(1, (step + 1) / 5)
        run(ours, own, [step])
        run(peer, other, [step])
        for mode in ("train", "eval", "train"):
            getattr(ours, mode)()
            getattr(peer, mode)()
            for a, b in zip(own, other, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)
