"""A call is like another where nothing differs but what its tensors hold and where they lie."""

from __future__ import annotations

import pytest
import torch

from helix_kernel.alike import Alike, Findings


def arguments(**changes):
    drawn = {"x": torch.ones(2, 3), "weight": torch.ones(3), "bias": None, "eps": 1e-5, "limits": [0.0, 1.0]}
    return tuple({**drawn, **changes}.values())


def test_other_tensors_of_the_same_kind_are_alike():
    args = arguments()
    tensors = Alike(arguments()).tensors(args)
    assert tensors is not None
    assert [id(tensor) for tensor in tensors] == [id(args[0]), id(args[1])]


@pytest.mark.parametrize(
    "changes",
    [
        {"x": torch.ones(2, 4)},
        {"x": torch.ones(3, 2).T},
        {"x": torch.ones(2, 3, dtype=torch.float64)},
        {"x": torch.ones(2, 3, requires_grad=True)},
        {"x": torch.nn.Parameter(torch.ones(2, 3), requires_grad=False)},
        {"x": torch.empty(2, 3, device="meta")},
        {"x": torch.zeros(2, 3, dtype=torch.complex64).conj().imag},
        {"bias": torch.ones(3)},
        {"weight": None, "bias": torch.ones(3)},
        {"eps": 1e-6},
        {"eps": 0},
        {"limits": None},
        {"limits": [0.0, 2.0]},
    ],
    ids=repr,
)
def test_any_other_difference_is_seen(changes):
    like = Alike(arguments())
    assert like.tensors(arguments(**changes)) is None
    assert like.tensors(arguments()) is not None


def test_values_are_those_of_the_call_and_not_what_became_of_them():
    limits = [0.0, 1.0]
    like = Alike(arguments(limits=limits))
    limits[1] = 2.0
    assert like.tensors(arguments(limits=limits)) is None


def test_one_tensor_given_twice_is_not_like_two():
    x = torch.ones(3)
    assert Alike((x, x.clone())).tensors((x, x)) is None
    assert Alike((x, x)).tensors((x, x)) is None


@pytest.mark.parametrize(
    "enter",
    [torch.inference_mode, lambda: torch.autocast("cpu", dtype=torch.bfloat16)],
    ids=["inference", "autocast"],
)
def test_what_the_dispatcher_would_do_counts(enter):
    like = Alike(arguments())
    with enter():
        assert like.tensors(arguments()) is None


def test_inside_a_transform_nothing_is_alike():
    like = Alike(arguments())

    def look(x):
        assert like.tensors(arguments(x=x)) is None
        return x

    torch.func.vmap(look)(torch.randn(5, 2, 3))


def test_findings_are_told_apart_by_the_first_shape():
    findings = Findings()
    for n in range(5):
        findings.keep((torch.randn(n, 3), n % 2), n)
    found = findings.find((torch.randn(3, 3), 1))
    assert found is not None
    assert found[0] == 3
    assert findings.find((torch.randn(3, 3), 0)) is None
    assert findings.find((torch.randn(7, 3), 1)) is None


def test_there_are_never_many_findings():
    findings = Findings()
    for n in range(100):
        findings.keep((torch.empty(n),), n)
    assert len(findings._kept) <= 16
    assert findings.find((torch.empty(99),)) is not None


def test_where_pytorch_cannot_tell_nothing_is_remembered(monkeypatch):
    monkeypatch.setattr("helix_kernel.alike._tensor_guards", lambda: None)
    findings = Findings()
    findings.keep([torch.ones(2)], "finding")
    assert findings.find([torch.ones(2)]) is None
