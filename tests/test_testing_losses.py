"""The suite of losses finds out what inputs a loss takes, and passes a correct one that is not declared."""

import pytest
import torch
import torch.nn.functional as F
from planted.losses import Correct
from torch import nn

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.losses import LossSuite


def suite_of(loss):
    class Suite(LossSuite):
        __test__ = False

        def make_loss(self, reduction):
            return loss(reduction)

    return Suite()


class TestCorrect(LossSuite):
    def make_loss(self, reduction):
        return Correct(reduction)


def test_inputs_are_found_by_what_the_loss_takes():
    class Classes(nn.Module):
        def forward(self, prediction, target, *, mask=None):
            if target.is_floating_point():
                raise ArgumentError("target is no class")
            return F.cross_entropy(prediction.flatten(0, 1), target.flatten())

    prediction, target = suite_of(lambda reduction: Classes()).inputs(dtype=torch.float64)
    assert (tuple(prediction.shape), tuple(target.shape)) == ((4, 5, 6), (4, 5))
    prediction, target = suite_of(Correct).inputs(dtype=torch.float64)
    assert prediction.shape == target.shape == (4, 5)


def test_a_loss_that_takes_no_usual_inputs_is_told_so():
    class Picky(nn.Module):
        def forward(self, prediction, target, *, mask=None):
            raise ArgumentError("I want a graph")

    with pytest.raises(AssertionError, match=r"override inputs.*\n.*I want a graph"):
        suite_of(lambda reduction: Picky()).inputs(dtype=torch.float64)
