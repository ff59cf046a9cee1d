"""Each loss with each of its options is its formula in plain numpy, under every mask and reduction."""

import math

import numpy as np
import pytest
import torch

from helix_train.losses.classification import BCEWithLogits, CrossEntropy, Focal
from helix_train.losses.regression import L1, MSE, SmoothL1

SHAPE, N_CLASSES = (3, 4), 5


def cross_entropy(logits, classes, *, smoothing=0.0):
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    wanted = (1 - smoothing) * np.eye(N_CLASSES)[classes] + smoothing / N_CLASSES
    return -(wanted * np.log(p)).sum(-1)


def softmax_focal(logits, classes, *, gamma):
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    p = np.take_along_axis(p, classes[..., None], -1)[..., 0]
    return -((1 - p) ** gamma) * np.log(p)


def focal(logits, target, *, gamma, alpha=None):
    p = 1 / (1 + np.exp(-logits))
    p, weight = np.where(target == 1, p, 1 - p), np.ones(target.shape)
    if alpha is not None:
        weight = np.where(target == 1, alpha, 1 - alpha)
    return -weight * (1 - p) ** gamma * np.log(p)


def bce(logits, target, *, weight=1.0):
    p = 1 / (1 + np.exp(-logits))
    return -(weight * target * np.log(p) + (1 - target) * np.log(1 - p))


def smooth_l1(prediction, target, *, beta):
    d = np.abs(prediction - target)
    return np.where(d < beta, d**2 / (2 * beta), d - beta / 2)


def logits_and_classes():
    draws = np.random.default_rng(0)
    return 3 * draws.standard_normal((*SHAPE, N_CLASSES)), draws.integers(N_CLASSES, size=SHAPE)


def logits_and_bits():
    draws = np.random.default_rng(0)
    return 3 * draws.standard_normal(SHAPE), draws.integers(2, size=SHAPE).astype(float)


def logits_and_chances():
    draws = np.random.default_rng(0)
    return 3 * draws.standard_normal(SHAPE), draws.random(SHAPE)


def two_numbers():
    draws = np.random.default_rng(0)
    return draws.standard_normal(SHAPE), draws.standard_normal(SHAPE)


CASES = {
    "cross-entropy": (CrossEntropy, {}, logits_and_classes, cross_entropy),
    "cross-entropy smoothed": (
        CrossEntropy,
        {"label_smoothing": 0.3},
        logits_and_classes,
        lambda x, y: cross_entropy(x, y, smoothing=0.3),
    ),
    "cross-entropy of no class": (
        CrossEntropy,
        {"label_smoothing": 1.0},
        logits_and_classes,
        lambda x, y: cross_entropy(x, y, smoothing=1.0),
    ),
    "mse": (MSE, {}, two_numbers, lambda x, y: (x - y) ** 2),
    "l1": (L1, {}, two_numbers, lambda x, y: np.abs(x - y)),
    "smooth-l1": (SmoothL1, {}, two_numbers, lambda x, y: smooth_l1(x, y, beta=1.0)),
    "smooth-l1 narrow": (SmoothL1, {"beta": 0.4}, two_numbers, lambda x, y: smooth_l1(x, y, beta=0.4)),
    "bce of bits": (BCEWithLogits, {}, logits_and_bits, bce),
    "bce of chances": (BCEWithLogits, {}, logits_and_chances, bce),
    "bce weighted": (
        BCEWithLogits,
        {"pos_weight": 2.5},
        logits_and_chances,
        lambda x, y: bce(x, y, weight=2.5),
    ),
    "focal": (Focal, {}, logits_and_bits, lambda x, y: focal(x, y, gamma=2.0)),
    "focal weighted": (
        Focal,
        {"gamma": 0.5, "alpha": 0.25},
        logits_and_bits,
        lambda x, y: focal(x, y, gamma=0.5, alpha=0.25),
    ),
    "focal softmax": (
        Focal,
        {"activation": "softmax", "gamma": 1.5},
        logits_and_classes,
        lambda x, y: softmax_focal(x, y, gamma=1.5),
    ),
}
MASKS = {
    "none": None,
    "some": np.random.default_rng(1).random(SHAPE) < 0.5,
    "a row": np.array([[True], [False], [True]]),
    "a column": np.array([False, True, True, True]),
    "one element": np.arange(12).reshape(SHAPE) == 5,
    "no element": np.zeros(SHAPE, dtype=bool),
}
REDUCTIONS = {
    "mean": lambda elements, kept: elements[kept].mean() if kept.any() else 0.0,
    "sum": lambda elements, kept: elements[kept].sum(),
    "none": lambda elements, kept: np.where(kept, elements, 0.0),
}
every_loss = pytest.mark.parametrize("name", CASES)
every_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)


def tensors(pair):
    return [torch.from_numpy(part) for part in pair]


@pytest.mark.parametrize("kept", MASKS)
@every_reduction
@every_loss
def test_a_loss_is_its_formula(name, reduction, kept):
    make, options, inputs, formula = CASES[name]
    mask = MASKS[kept]
    whole = np.ones(SHAPE, dtype=bool) if mask is None else np.broadcast_to(mask, SHAPE)
    pair = inputs()
    found = make(reduction=reduction, **options)(
        *tensors(pair), mask=None if mask is None else torch.from_numpy(mask)
    )
    expected = REDUCTIONS[reduction](formula(*pair), whole)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-11, atol=1e-14)


@every_reduction
@every_loss
def test_the_gradient_is_that_of_the_formula_under_every_reduction(name, reduction):
    make, options, inputs, _ = CASES[name]
    prediction, target = tensors(inputs())
    loss, mask = make(reduction=reduction, **options), torch.from_numpy(MASKS["some"])
    prediction.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, target), (prediction,), fast_mode=True)
    assert torch.autograd.gradcheck(lambda x: loss(x, target, mask=mask), (prediction,), fast_mode=True)


@every_loss
def test_a_row_that_is_masked_throughout_counts_for_nothing(name):
    """The mean is over elements, not over rows: such a row is as if it were not in the batch."""
    make, options, inputs, _ = CASES[name]
    prediction, target = tensors(inputs())
    loss, mask = make(**options), torch.from_numpy(MASKS["a row"])
    kept = torch.tensor([0, 2])
    torch.testing.assert_close(
        loss(prediction, target, mask=mask), loss(prediction[kept], target[kept]), rtol=1e-14, atol=0
    )
    prediction.requires_grad_()
    loss(prediction, target, mask=mask).backward()
    assert (prediction.grad[1] == 0).all()
    assert (prediction.grad[kept] != 0).any()


def limit(dtype, *rows):
    return torch.tensor(rows, dtype=dtype, requires_grad=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e3, 1e30])
@pytest.mark.parametrize(
    ("loss", "right", "wrong"),
    [
        (CrossEntropy(reduction="none"), 0.0, 1.0),
        (CrossEntropy(label_smoothing=0.3, reduction="none"), 0.15, 0.85),
        (Focal(activation="softmax", reduction="none"), 0.0, 1.0),
    ],
    ids=["cross-entropy", "smoothed", "focal"],
)
def test_of_huge_logits_the_loss_is_the_limit_of_its_formula(loss, right, wrong, size, dtype):
    """Where p is 0 or 1 to all bits, the loss is the logit's distance times the probability that is amiss."""
    prediction = limit(dtype, [size, 0.0], [0.0, size])
    elements = loss(prediction, torch.tensor([0, 0]))
    torch.testing.assert_close(elements.detach(), torch.tensor([right * size, wrong * size], dtype=dtype))
    elements.sum().backward()
    assert prediction.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e3, 1e30])
@pytest.mark.parametrize(
    ("loss", "yes", "no"),
    [
        (BCEWithLogits(pos_weight=2.0, reduction="none"), 2.0, 1.0),
        (Focal(alpha=0.25, reduction="none"), 0.25, 0.75),
    ],
    ids=["bce", "focal"],
)
def test_of_huge_single_logits_too(loss, yes, no, size, dtype):
    prediction = limit(dtype, size, -size, size, -size)
    elements = loss(prediction, torch.tensor([1.0, 0.0, 0.0, 1.0]))
    expected = torch.tensor([0.0, 0.0, no * size, yes * size], dtype=dtype)
    torch.testing.assert_close(elements.detach(), expected)
    elements.sum().backward()
    assert prediction.grad.isfinite().all()


@pytest.mark.parametrize(
    "loss", [CrossEntropy(), Focal(activation="softmax")], ids=["cross-entropy", "focal"]
)
def test_classes_that_a_model_rules_out_by_minus_infinity_do_no_harm(loss):
    prediction = limit(torch.float64, [0.3, -math.inf, -0.7])
    two = limit(torch.float64, [0.3, -0.7])
    value = loss(prediction, torch.tensor([0]))
    torch.testing.assert_close(value, loss(two, torch.tensor([0])), rtol=1e-14, atol=0)
    value.backward()
    assert prediction.grad[0, 1] == 0
    assert prediction.grad.isfinite().all()


def test_a_target_that_a_model_rules_out_costs_infinitely_much():
    assert CrossEntropy()(torch.tensor([[0.3, -math.inf]]), torch.tensor([1])) == math.inf
