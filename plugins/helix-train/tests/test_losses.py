import inspect
import math

import attrs
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.losses import LossSuite
from helix_train.losses import classification, config, regression
from helix_train.losses.classification import BCEWithLogits, CrossEntropy, Focal
from helix_train.losses.regression import L1, MSE, SmoothL1

CLASSES = [CrossEntropy, MSE, L1, SmoothL1, BCEWithLogits, Focal]


class TestCrossEntropySuite(LossSuite):
    def make_loss(self, reduction):
        return CrossEntropy(reduction=reduction)


class TestSmoothedCrossEntropySuite(LossSuite):
    def make_loss(self, reduction):
        return CrossEntropy(label_smoothing=0.1, reduction=reduction)


class TestMSESuite(LossSuite):
    def make_loss(self, reduction):
        return MSE(reduction=reduction)


class TestL1Suite(LossSuite):
    def make_loss(self, reduction):
        return L1(reduction=reduction)


class TestSmoothL1Suite(LossSuite):
    def make_loss(self, reduction):
        return SmoothL1(beta=0.7, reduction=reduction)


class TestBCEWithLogitsSuite(LossSuite):
    def make_loss(self, reduction):
        return BCEWithLogits(pos_weight=2.5, reduction=reduction)


class TestFocalSuite(LossSuite):
    def make_loss(self, reduction):
        return Focal(alpha=0.25, reduction=reduction)


class TestSteepFocalSuite(LossSuite):
    def make_loss(self, reduction):
        return Focal(gamma=0.5, reduction=reduction)


class TestSoftmaxFocalSuite(LossSuite):
    def make_loss(self, reduction):
        return Focal(activation="softmax", gamma=1.5, reduction=reduction)


logits = st.floats(-30, 30)


@given(x=logits, y=logits, beta=st.floats(0.01, 10))
@settings(max_examples=60, deadline=None)
def test_regression_formulas(x, y, beta):
    prediction, target = torch.tensor([x], dtype=torch.float64), torch.tensor([y], dtype=torch.float64)
    d = abs(x - y)
    assert MSE()(prediction, target).item() == pytest.approx(d * d, rel=1e-12)
    assert L1()(prediction, target).item() == pytest.approx(d, rel=1e-12)
    smooth = d * d / (2 * beta) if d < beta else d - beta / 2
    assert SmoothL1(beta=beta)(prediction, target).item() == pytest.approx(smooth, rel=1e-12)


@given(rows=st.lists(st.lists(logits, min_size=3, max_size=3), min_size=1, max_size=4), data=st.data())
@settings(max_examples=60, deadline=None)
def test_cross_entropy_formula(rows, data):
    classes = data.draw(st.lists(st.integers(0, 2), min_size=len(rows), max_size=len(rows)))
    expected = [
        math.log(sum(math.exp(x - row[y]) for x in row)) for row, y in zip(rows, classes, strict=True)
    ]
    elements = CrossEntropy(reduction="none")(torch.tensor(rows, dtype=torch.float64), torch.tensor(classes))
    assert elements.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(x=st.floats(-20, 20), y=st.booleans(), gamma=st.floats(0, 5), alpha=st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_focal_is_equation_5(x, y, gamma, alpha):
    p = 1 / (1 + math.exp(-x))
    p_t, alpha_t = (p, alpha) if y else (1 - p, 1 - alpha)
    expected = -alpha_t * (1 - p_t) ** gamma * math.log(p_t)
    loss = Focal(gamma=gamma, alpha=alpha)(torch.tensor([x], dtype=torch.float64), torch.tensor([float(y)]))
    assert loss.item() == pytest.approx(expected, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("shape", [(), (7,), (2, 3, 4)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_losses_are_torchs_where_torch_has_them(shape, reduction):
    torch.manual_seed(0)
    x, y = torch.randn(2, *shape, dtype=torch.float64)
    classes, scores = torch.randint(5, shape), torch.randn(*shape, 5, dtype=torch.float64)
    probabilities, weight = y.sigmoid(), torch.tensor(3.0, dtype=torch.float64)
    flat = scores.reshape(-1, 5), classes.reshape(-1)
    pairs = [
        (MSE(reduction=reduction)(x, y), F.mse_loss(x, y, reduction=reduction)),
        (L1(reduction=reduction)(x, y), F.l1_loss(x, y, reduction=reduction)),
        (
            SmoothL1(beta=0.3, reduction=reduction)(x, y),
            F.smooth_l1_loss(x, y, beta=0.3, reduction=reduction),
        ),
        (
            BCEWithLogits(pos_weight=3.0, reduction=reduction)(x, probabilities),
            F.binary_cross_entropy_with_logits(x, probabilities, pos_weight=weight, reduction=reduction),
        ),
        (
            CrossEntropy(label_smoothing=0.2, reduction=reduction)(scores, classes).flatten(),
            F.cross_entropy(*flat, label_smoothing=0.2, reduction=reduction).flatten(),
        ),
    ]
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_focal_without_gamma_is_cross_entropy(activation):
    torch.manual_seed(0)
    if activation == "sigmoid":
        pair, plain = (torch.randn(20), torch.randint(2, (20,))), BCEWithLogits()
    else:
        pair, plain = (torch.randn(20, 4), torch.randint(4, (20,))), CrossEntropy()
    torch.testing.assert_close(Focal(activation=activation, gamma=0)(*pair), plain(*pair))


def test_softmax_focal_of_two_classes_is_sigmoid_focal():
    torch.manual_seed(0)
    x, y = torch.randn(20, dtype=torch.float64), torch.randint(2, (20,))
    both = torch.stack([torch.zeros_like(x), x], dim=-1)
    torch.testing.assert_close(Focal(activation="softmax")(both, y), Focal()(x, y))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_focal_gradient_is_finite_where_the_answer_is_certain(activation, gamma):
    right = (
        torch.tensor([200.0, 40.0]) if activation == "sigmoid" else torch.tensor([[0.0, 200.0], [0.0, 40.0]])
    )
    right.requires_grad_()
    Focal(activation=activation, gamma=gamma)(right, torch.tensor([1, 1])).backward()
    assert right.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_classes_may_be_of_any_integer_dtype(dtype):
    scores = torch.randn(3, 4)
    expected = F.cross_entropy(scores, torch.tensor([0, 3, 1]))
    torch.testing.assert_close(CrossEntropy()(scores, torch.tensor([0, 3, 1], dtype=dtype)), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_fast_mean_of_cross_entropy_is_that_of_its_elements(smoothing):
    prediction, target = torch.randn(3, 5, 7, dtype=torch.float64), torch.randint(0, 7, (3, 5))
    mean, each = (CrossEntropy(label_smoothing=smoothing, reduction=how) for how in ("mean", "none"))
    torch.testing.assert_close(mean(prediction, target), each(prediction, target).mean(), rtol=1e-12, atol=0)
    masked = mean(prediction, target, mask=torch.ones(3, 5, dtype=torch.bool))
    torch.testing.assert_close(mean(prediction, target), masked, rtol=1e-12, atol=0)


def test_what_torch_takes_for_no_class_is_refused_under_the_fast_mean():
    with pytest.raises(ArgumentError, match="target holds -100, allowed is 0 to 6"):
        CrossEntropy()(torch.randn(2, 7), torch.tensor([3, -100]))


def test_an_empty_batch_costs_nothing():
    assert MSE()(torch.empty(0, 3), torch.empty(0, 3)) == 0
    assert CrossEntropy()(torch.empty(0, 3), torch.empty(0, dtype=torch.int64)) == 0


@pytest.mark.parametrize(
    ("loss", "prediction", "target", "words"),
    [
        (MSE(), torch.zeros(4, 1), torch.zeros(4), r"target has shape \(4,\) and prediction \(4, 1\)"),
        (MSE(), torch.zeros(4, dtype=torch.int64), torch.zeros(4), "prediction has dtype torch.int64"),
        (CrossEntropy(), torch.zeros(2, 5, 3), torch.zeros(2, 3).long(), r"\(2, 5, 3\) and target \(2, 3\)"),
        (CrossEntropy(), torch.zeros(2, 1), torch.zeros(2).long(), "of 2 classes or more"),
        (CrossEntropy(), torch.zeros(2, 3), torch.zeros(2), "target has dtype torch.float32"),
        (CrossEntropy(), torch.zeros(2, 3), torch.tensor([0, 3]), "target holds 3, allowed is 0 to 2"),
        (CrossEntropy(), torch.zeros(2, 3), torch.tensor([-100, 3]), "target holds -100.*with mask"),
        (BCEWithLogits(), torch.zeros(2), torch.tensor([0.5, 1.5]), "target holds 1.5, allowed is 0 to 1"),
        (BCEWithLogits(), torch.zeros(2), torch.tensor([0.5, math.nan]), "target holds nan"),
        (Focal(), torch.zeros(2), torch.tensor([0.5, 1]), "target holds 0.5, allowed is 0 or 1"),
        (Focal(activation="softmax"), torch.zeros(2, 3), torch.tensor([0, 3]), "target holds 3"),
    ],
)
def test_wrong_inputs_are_said(loss, prediction, target, words):
    with pytest.raises(ArgumentError, match=words):
        loss(prediction, target)


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (MSE, {"reduction": "means"}, r"reduction is 'means'.* Did you mean 'mean'\?"),
        (CrossEntropy, {"label_smoothing": 1.5}, "label_smoothing is 1.5, allowed is >= 0 and <= 1"),
        (SmoothL1, {"beta": 0}, "beta is 0, allowed is > 0"),
        (BCEWithLogits, {"pos_weight": -1}, "pos_weight is -1, allowed is > 0"),
        (Focal, {"gamma": -1}, "gamma is -1, allowed is >= 0"),
        (Focal, {"alpha": 2}, "alpha is 2, allowed is >= 0 and <= 1"),
        (Focal, {"activation": "soft-max"}, "activation is 'soft-max'.* Did you mean 'softmax'"),
        (Focal, {"activation": "softmax", "alpha": 0.5}, "leave alpha out"),
    ],
)
def test_wrong_options_are_said(make, options, words):
    with pytest.raises(ArgumentError, match=words):
        make(**options)


def test_the_config_of_focal_says_the_same_of_alpha():
    with pytest.raises(ArgumentError, match="leave alpha out"):
        config.FocalConfig(activation="softmax", alpha=0.5)


@pytest.mark.parametrize("make", CLASSES)
def test_config_and_class_take_the_same_options(make):
    options = {field.name: field.default for field in attrs.fields(getattr(config, f"{make.__name__}Config"))}
    signature = inspect.signature(make).parameters
    assert options == {name: parameter.default for name, parameter in signature.items()}


@pytest.mark.parametrize("module", [classification, regression])
def test_every_loss_is_in_the_table_above(module):
    losses = {
        value
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__ == module.__name__
    }
    assert losses <= set(CLASSES)


@pytest.mark.parametrize("make", CLASSES)
def test_printing_a_loss_shows_every_option(make):
    assert all(f"{field}=" in repr(make()) for field in inspect.signature(make).parameters)
