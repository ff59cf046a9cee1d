"""The suite of optimizers passes a sound one and catches each planted fault by the case meant for it."""

from __future__ import annotations

import pytest
from planted import optimizers
from planted.faults import check, component_of, passes


@pytest.mark.parametrize("fault", optimizers.FAULTS, ids=str)
def test_a_planted_fault_is_caught_and_explained(fault):
    check("optimizer", fault)


def test_a_sound_optimizer_passes_every_case():
    assert len(passes("optimizer", component_of(optimizers.Correct))) > 15
