"""Metrics against formulas in plain numpy, over masks, batches, processes and classes that do not occur."""

import inspect
import math

import attrs
import metric_ranks
import numpy as np
import pytest
import ranks
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_kernel.errors import ArgumentError
from helix_train.metrics import classes, config, differences, likelihood
from helix_train.metrics.base import Metric
from helix_train.metrics.classes import F1, Accuracy, Precision, Recall, TopKAccuracy
from helix_train.metrics.differences import MeanAbsoluteError, MeanSquaredError
from helix_train.metrics.likelihood import BitsPerByte, Perplexity
from helix_train.metrics.several import Metrics

CONFIGS = {
    Accuracy: config.AccuracyConfig,
    TopKAccuracy: config.TopKAccuracyConfig,
    Precision: config.ClassMetricConfig,
    Recall: config.ClassMetricConfig,
    F1: config.ClassMetricConfig,
    Perplexity: config.MetricConfig,
    BitsPerByte: config.BitsPerByteConfig,
    MeanAbsoluteError: config.MetricConfig,
    MeanSquaredError: config.MetricConfig,
}


def accuracy(logits, target):
    return np.mean([row.argmax() == y for row, y in zip(logits, target, strict=True)])


def top_k(k):
    def formula(logits, target):
        return np.mean(
            [y in np.argsort(-row, kind="stable")[:k] for row, y in zip(logits, target, strict=True)]
        )

    return formula


def share_of(kind, average, zero=0.0):
    def formula(logits, target):
        chosen = logits.argmax(1)
        found = [counts(c, chosen, target, kind) for c in sorted({*chosen, *target})]
        if average == "binary":
            above, below = counts(1, chosen, target, kind)
            return above / below if below else zero
        if average == "micro":
            return sum(above for above, _ in found) / sum(below for _, below in found)
        return np.mean([above / below if below else zero for above, below in found])

    return formula


def counts(c, chosen, target, kind):
    met, predicted, actual = ((chosen == c) & (target == c)).sum(), (chosen == c).sum(), (target == c).sum()
    return {"precision": (met, predicted), "recall": (met, actual), "f1": (2 * met, predicted + actual)}[kind]


def nats(logits, target):
    shifted = logits - logits.max(1, keepdims=True)
    chances = np.exp(shifted) / np.exp(shifted).sum(1, keepdims=True)
    return -np.mean(np.log(chances[np.arange(len(target)), target]))


OF_CLASSES = {
    "accuracy": (Accuracy, {}, accuracy),
    "top-1": (TopKAccuracy, {"k": 1}, top_k(1)),
    "top-3": (TopKAccuracy, {"k": 3}, top_k(3)),
    "perplexity": (Perplexity, {}, lambda x, y: math.exp(nats(x, y))),
    "bits per byte": (
        BitsPerByte,
        {"tokens_per_byte": 0.25},
        lambda x, y: nats(x, y) / math.log(2) * 0.25,
    ),
} | {
    f"{kind} {average} {zero:g}": (
        make,
        {"average": average, "zero_division": zero},
        share_of(kind, average, zero),
    )
    for kind, make in [("precision", Precision), ("recall", Recall), ("f1", F1)]
    for average, zero in [("macro", 0.0), ("macro", 1.0), ("micro", 0.0), ("binary", 0.0), ("binary", 1.0)]
}


def drawn(n, n_classes=6, *, seed=0, absent=()):
    """Logits (n, V) and targets (n,) without some classes, of which one is never predicted either."""
    draws = np.random.default_rng(seed)
    logits = draws.standard_normal((n, n_classes))
    target = draws.choice([c for c in range(n_classes) if c not in absent], size=n)
    if absent:
        logits[:, absent[0]] = -10
    return logits, target


@pytest.mark.parametrize("absent", [(), (4, 1)], ids=["all classes", "two classes absent"])
@pytest.mark.parametrize("name", OF_CLASSES)
def test_a_metric_of_classes_is_its_formula(name, absent):
    make, options, formula = OF_CLASSES[name]
    logits, target = drawn(60, absent=absent)
    metric = make(**options)
    for part in np.split(np.arange(60), [0, 7, 8, 40]):
        metric.update(torch.from_numpy(logits[part]), torch.from_numpy(target[part]))
    assert metric.compute() == pytest.approx(formula(logits, target), rel=1e-12)


@pytest.mark.parametrize(
    "name", ["recall macro 1", "precision binary 1", "precision binary 0", "f1 binary 1"]
)
def test_a_share_of_nothing_is_what_was_asked_for(name):
    make, options, formula = OF_CLASSES[name]
    logits = np.array([[2.0, -9.0, 1.0], [1.0, -9.0, 3.0]])
    target = np.array([0, 0])
    metric = make(**options)
    metric.update(torch.from_numpy(logits), torch.from_numpy(target))
    assert metric.compute() == formula(logits, target)
    if "binary" in name:
        assert metric.compute() == options["zero_division"]


@pytest.mark.parametrize("name", OF_CLASSES)
def test_what_lies_under_the_mask_does_not_count(name):
    make, options, formula = OF_CLASSES[name]
    logits, target = drawn(24)
    mask = np.random.default_rng(1).random(24) < 0.5
    hidden = np.where(mask[:, None], logits, np.nan), np.where(mask, target, -100)
    metric = make(**options)
    shapes = (2, 3, 4, 6), (2, 3, 4)
    metric.update(
        *(torch.from_numpy(part).reshape(shape) for part, shape in zip(hidden, shapes, strict=True)),
        mask=torch.from_numpy(mask).reshape(2, 3, 4),
    )
    assert metric.compute() == pytest.approx(formula(logits[mask], target[mask]), rel=1e-12)


def test_a_mask_is_broadcast():
    metric = Accuracy()
    metric.update(
        torch.eye(3).expand(2, 3, 3), torch.tensor([[0, 1, 0]] * 2), mask=torch.tensor([True, True, False])
    )
    assert (metric.compute(), metric.state()["count"].item()) == (1.0, 4)


@pytest.mark.parametrize(
    ("make", "formula"),
    [(MeanAbsoluteError, lambda d: np.abs(d).mean()), (MeanSquaredError, lambda d: (d**2).mean())],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_metric_of_differences_is_its_formula(make, formula, dtype):
    torch.manual_seed(0)
    prediction, target = torch.randn(2, 5, 4).to(dtype), torch.randn(2, 5, 4).to(dtype)
    mask = torch.rand(2, 5, 4) < 0.5
    metric, masked = make(), make()
    metric.update(prediction, target)
    masked.update(prediction.masked_fill(~mask, math.nan), target, mask=mask)
    d = prediction.double().numpy() - target.double().numpy()
    assert metric.compute() == pytest.approx(formula(d), rel=1e-12)
    assert masked.compute() == pytest.approx(formula(d[mask.numpy()]), rel=1e-12)


@pytest.mark.parametrize("name", ["accuracy", "f1 macro 0", "f1 binary 0", "precision micro 0"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.bool])
def test_one_logit_for_yes_or_no_is_two_classes(name, dtype):
    make, options, formula = OF_CLASSES[name]
    draws = np.random.default_rng(0)
    logit, target = draws.standard_normal((4, 5)), draws.integers(2, size=(4, 5))
    metric = make(threshold=0.3, **options)
    metric.update(torch.from_numpy(logit), torch.from_numpy(target).to(dtype))
    two = np.stack([np.full(20, 0.3), logit.ravel()], axis=1)
    assert metric.compute() == pytest.approx(formula(two, target.ravel()), rel=1e-12)


def test_of_equal_logits_the_first_classes_count():
    logits, target = torch.zeros(4, 4), torch.arange(4)
    found = []
    for metric in (Accuracy(), TopKAccuracy(k=1), TopKAccuracy(k=3), TopKAccuracy(k=4)):
        metric.update(logits, target)
        found.append(metric.compute())
    assert found == [0.25, 0.25, 0.75, 1.0]


@pytest.mark.parametrize("k", [1, 3])
def test_a_target_whose_logit_is_nan_is_not_met(k):
    metric = TopKAccuracy(k=k)
    metric.update(torch.tensor([[1.0, math.nan, 0.0]]), torch.tensor([1]))
    assert metric.compute() == 0


def test_half_precision_is_summed_in_full():
    torch.manual_seed(0)
    logits, target = torch.randn(500, 4).to(torch.float16), torch.randint(4, (500,))
    metric = Perplexity()
    metric.update(logits, target)
    assert metric.compute() == pytest.approx(
        math.exp(nats(logits.double().numpy(), target.numpy())), rel=1e-6
    )


def test_a_perplexity_too_large_for_a_float_is_infinite():
    metric = Perplexity()
    metric.update(torch.tensor([[0.0, 1e5]]), torch.tensor([0]))
    assert metric.compute() == math.inf


@pytest.mark.parametrize("make", CONFIGS)
def test_nothing_seen_is_not_a_number_and_a_reset_forgets(make):
    metric = make()
    assert math.isnan(metric.compute())
    if make in (MeanAbsoluteError, MeanSquaredError):
        pair = torch.zeros(3, 6), torch.ones(3, 6)
    else:
        pair = torch.zeros(3, 6), torch.ones(3, dtype=torch.int64)
    metric.update(*pair, mask=torch.zeros(pair[1].shape, dtype=torch.bool))
    assert math.isnan(metric.compute())
    metric.update(*pair)
    assert math.isfinite(metric.compute())
    metric.reset()
    assert math.isnan(metric.compute())
    assert metric.state() == {}


@given(
    seed=st.integers(0, 2**32 - 1),
    cuts=st.lists(st.integers(0, 30), max_size=4),
    name=st.sampled_from(sorted(OF_CLASSES)),
)
@settings(max_examples=40, deadline=None)
def test_states_of_any_parts_add_up_to_that_of_the_whole(seed, cuts, name):
    make, options, _ = OF_CLASSES[name]
    logits, target = (torch.from_numpy(part) for part in drawn(30, seed=seed))
    whole, merged = make(**options), make(**options)
    whole.update(logits, target)
    for part in np.split(np.arange(30), sorted(cuts)):
        one = make(**options)
        one.update(logits[part], target[part])
        merged.merge(one.state())
    assert merged.compute() == pytest.approx(whole.compute(), rel=1e-12)


def test_a_state_is_a_copy():
    metric = Accuracy()
    metric.update(torch.eye(2), torch.arange(2))
    metric.state()["right"].zero_()
    assert metric.compute() == 1


@pytest.mark.parametrize("world", [2, 6])
def test_ranks_agree_on_the_value_of_one_process_even_one_without_a_batch(tmp_path, world):
    expected = metric_ranks.measure(0, 1).compute()
    outcomes = ranks.run(tmp_path, world, metric_ranks.measured)
    for alone, together in outcomes:
        assert together == pytest.approx(expected, rel=1e-12)
        assert together == outcomes[0][1], "ranks differ"
        assert alone != together


def test_without_a_group_the_sum_over_ranks_is_that_of_one():
    metrics = metric_ranks.measure(0, 1)
    before = metrics.compute()
    metrics.sum_over_ranks()
    assert metrics.compute() == before


def test_gradients_and_inference_tensors_are_left_alone():
    metric = MeanSquaredError()
    prediction = torch.zeros(3, requires_grad=True)
    with torch.inference_mode():
        metric.update(torch.zeros(3), torch.ones(3))
    metric.update(prediction, torch.ones(3))
    assert not metric.state()["sum"].requires_grad
    assert metric.compute() == 1


class OfThirdParty:
    """A metric that shares nothing with ours but the methods."""

    name = "largest"

    def __init__(self):
        self.reset()

    def update(self, prediction, target, *, mask=None):
        self.largest = max(self.largest, prediction.max().item())

    def compute(self):
        return self.largest

    def reset(self):
        self.largest = -math.inf

    def state(self):
        return {"largest": torch.tensor(self.largest)}

    def merge(self, state):
        self.largest = max(self.largest, state["largest"].item())


def test_metrics_of_third_parties_are_measured_beside_ours():
    metrics = Metrics([Accuracy(), OfThirdParty()])
    metrics.begin(object())
    metrics.update(torch.eye(2), torch.arange(2))
    assert metrics.compute() == {"accuracy": 1.0, "largest": 1.0}
    state = metrics.state()
    metrics.begin(object())
    metrics.merge(state)
    assert metrics.compute() == {"accuracy": 1.0, "largest": 1.0}


def test_bits_per_byte_takes_the_tokens_of_a_byte_from_the_dataset():
    class Dataset:
        tokens_per_byte = 0.25

    values = []
    for metric in (BitsPerByte(), BitsPerByte(tokens_per_byte=0.5)):
        metrics = Metrics([metric])
        metrics.begin(Dataset())
        metrics.update(torch.zeros(1, 2), torch.tensor([0]))
        values.append(metrics.compute()["bits_per_byte"])
    assert values == pytest.approx([0.25, 0.5])
    Dataset.tokens_per_byte = None
    with pytest.raises(ArgumentError, match="the targets of Dataset are no text"):
        Metrics([BitsPerByte()]).begin(Dataset())


def test_two_metrics_of_one_name_are_refused():
    with pytest.raises(ArgumentError, match="two metrics are called 'f1_macro'; leave one out"):
        Metrics([F1(), F1(average="micro"), F1()])


@pytest.mark.parametrize(
    ("metric", "prediction", "target", "words"),
    [
        (Accuracy(), torch.zeros(2, 3).long(), torch.zeros(2), "prediction has dtype torch.int64"),
        (Accuracy(), torch.zeros(2, 3), torch.zeros(3), r"\(2, 3\) and target \(3,\)"),
        (Accuracy(), torch.zeros(2, 3), torch.tensor([0, 3]), "target holds 3, allowed is 0 to 2"),
        (Accuracy(), torch.zeros(2, 3), torch.zeros(2), "target has dtype torch.float32"),
        (F1(), torch.zeros(2), torch.tensor([0.0, 0.5]), "not whole, allowed is 0 or 1"),
        (F1(), torch.zeros(2), torch.tensor([0, 2]), "target holds 2, allowed is 0 to 1"),
        (
            F1(average="binary", positive=3),
            torch.zeros(2, 3),
            torch.zeros(2).long(),
            "positive is 3, allowed",
        ),
        (TopKAccuracy(k=4), torch.zeros(2, 3), torch.zeros(2).long(), "k is 4, allowed is <= 3"),
        (Perplexity(), torch.zeros(2, 3), torch.tensor([0, -1]), "target holds -1"),
        (MeanSquaredError(), torch.zeros(2, 1), torch.zeros(2), "nothing is broadcast"),
    ],
)
def test_wrong_inputs_are_said_with_the_metric_s_name(metric, prediction, target, words):
    with pytest.raises(ArgumentError, match=f"metric {metric.name}: .*{words}"):
        Metrics([metric]).update(prediction, target)


def test_another_number_of_classes_is_refused():
    metric = F1()
    metric.update(torch.zeros(2, 3), torch.zeros(2).long())
    with pytest.raises(ArgumentError, match=r"met has shape \(4,\) and had \(3,\) before"):
        metric.update(torch.zeros(2, 4), torch.zeros(2).long())


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (TopKAccuracy, {"k": 0}, "k is 0, allowed is >= 1"),
        (F1, {"average": "makro"}, r"average is 'makro'.*Did you mean 'macro'\?"),
        (Recall, {"positive": -1}, "positive is -1, allowed is >= 0"),
        (BitsPerByte, {"tokens_per_byte": 0.0}, "tokens_per_byte is 0.0, allowed is > 0"),
    ],
)
def test_wrong_options_are_said(make, options, words):
    with pytest.raises(ArgumentError, match=words):
        make(**options)


@pytest.mark.parametrize("make", CONFIGS)
def test_config_and_class_take_the_same_options(make):
    options = {field.name: field.default for field in attrs.fields(CONFIGS[make])}
    signature = inspect.signature(make).parameters
    assert options == {name: parameter.default for name, parameter in signature.items()}


@pytest.mark.parametrize("module", [classes, likelihood, differences])
def test_every_metric_is_in_the_table_above(module):
    found = {
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Metric) and not inspect.isabstract(value)
    }
    assert found <= set(CONFIGS)


@pytest.mark.parametrize("average", ["macro", "micro", "binary"])
@pytest.mark.parametrize("n_classes", [2, 6])
def test_scikit_learn_gives_the_same(average, n_classes):
    theirs = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    if average == "binary" and n_classes > 2:
        pytest.skip("scikit-learn wants two classes for binary")
    logits, target = drawn(200, n_classes)
    chosen = logits.argmax(1)
    for zero in (0, 1):
        options = {"average": average, "zero_division": zero}
        for metric, peer in [
            (Precision(**options), theirs.precision_score),
            (Recall(**options), theirs.recall_score),
            (F1(**options), theirs.f1_score),
        ]:
            metric.update(torch.from_numpy(logits), torch.from_numpy(target))
            assert metric.compute() == pytest.approx(peer(target, chosen, **options), rel=1e-12)
    if n_classes > 2:
        metric = TopKAccuracy(k=3)
        metric.update(torch.from_numpy(logits), torch.from_numpy(target))
        assert metric.compute() == pytest.approx(theirs.top_k_accuracy_score(target, logits, k=3))
