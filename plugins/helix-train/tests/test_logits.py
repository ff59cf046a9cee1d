"""Logits made in parts: the gradients are those of all at once, and no tensor is as large as all."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from helix_kernel.errors import ArgumentError
from helix_train.logits import backward_by_positions, check_has_features
from helix_train.losses.classification import CrossEntropy
from helix_train.objective import Examples, Objective

B, L, V = 3, 11, 29


class Model(torch.nn.Module):
    """An embedding that is the head as well, as in most language models, and a loss of its own."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = torch.nn.Embedding(V, 8)
        self.body = torch.nn.Linear(8, 8)
        self.double()

    def forward(self, ids, *, mask=None):
        return self.logits(self.features(ids, mask=mask))

    def features(self, ids, *, mask=None):
        features = torch.tanh(self.body(self.embedding(ids)))
        self.spread = features.square().mean()
        return features if mask is None else features * mask[..., None]

    def logits(self, features):
        return features @ self.embedding.weight.T

    def auxiliary_loss(self):
        return 0.1 * self.spread


def examples(*, masked=False, padded=False):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(V, (B, L + 1), generator=generator)
    kept = torch.rand(B, L, generator=generator) < 0.4
    kept[:, :5] = False
    return Examples(
        inputs=ids[:, :-1],
        targets=ids[:, 1:],
        mask=kept if masked else None,
        input_mask=kept if padded else None,
    )


def at_once(given, loss, weight):
    model = Model()
    losses = Objective(model=model, loss=loss).backward(given, weight=weight)
    return losses, [parameter.grad for parameter in model.parameters()]


def in_parts(given, loss, weight, n_positions):
    model = Model()
    objective = Objective(model=model, loss=loss, forward=model.features)
    losses = backward_by_positions(objective, given, n_positions=n_positions, weight=weight)
    return losses, [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("n_positions", [1, 4, B * L, 1000])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_gradients_are_those_of_all_logits_at_once(n_positions, masked, reduction):
    given, loss = (
        examples(masked=masked, padded=masked),
        CrossEntropy(reduction=reduction, label_smoothing=0.1),
    )
    losses, gradients = at_once(given, loss, 0.7)
    own_losses, own_gradients = in_parts(given, loss, 0.7, n_positions)
    torch.testing.assert_close(own_losses.task, losses.task)
    torch.testing.assert_close(own_losses.auxiliary, losses.auxiliary)
    torch.testing.assert_close(own_gradients, gradients)


def test_targets_that_are_all_masked_give_no_gradient_but_the_models_own():
    given = examples()
    nothing = Examples(inputs=given.inputs, targets=given.targets, mask=torch.zeros(B, L, dtype=torch.bool))
    losses, gradients = at_once(nothing, CrossEntropy(), 1.0)
    own_losses, own_gradients = in_parts(nothing, CrossEntropy(), 1.0, 4)
    assert own_losses.task == losses.task == 0
    torch.testing.assert_close(own_gradients, gradients)


class _Largest(TorchDispatchMode):
    """Notes the most elements of a tensor that any call gives."""

    n_elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        results = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(results) if isinstance(leaf, torch.Tensor)]
        self.n_elements = max(self.n_elements, *sizes, 0)
        return results


def test_no_tensor_holds_more_logits_than_were_asked_for():
    with _Largest() as whole:
        at_once(examples(), CrossEntropy(), 1.0)
    with _Largest() as parts:
        in_parts(examples(), CrossEntropy(), 1.0, 4)
    assert whole.n_elements == B * L * V
    assert parts.n_elements == B * L * 8


def test_one_target_for_a_row_is_refused():
    given = examples()
    classes = Examples(inputs=given.inputs, targets=given.targets[:, 0])
    with pytest.raises(ArgumentError, match=r"targets have shape \(3,\) and inputs \(3, 11\)"):
        in_parts(classes, CrossEntropy(), 1.0, 4)


def test_a_model_without_features_is_refused():
    with pytest.raises(ArgumentError, match=r"has no logits\(\).*; set trainer.logits_chunk=0"):
        check_has_features(SimpleNamespace(features=None))


def test_a_model_with_a_memory_makes_no_logits_in_parts():
    model = SimpleNamespace(features=None, logits=None, memory=object())
    with pytest.raises(ArgumentError, match="has a memory"):
        check_has_features(model)
