"""The suite of losses passes sound losses and catches each planted fault by the case that is meant for it."""

from __future__ import annotations

import pytest
from planted import losses
from planted.faults import check, component_of, passes


@pytest.mark.parametrize("fault", losses.FAULTS, ids=str)
def test_a_planted_fault_is_caught_and_explained(fault):
    check("loss", fault)


@pytest.mark.parametrize("loss", [losses.Correct, losses.Classes])
def test_a_sound_loss_passes_every_case(loss):
    assert len(passes("loss", component_of(loss))) > 20
