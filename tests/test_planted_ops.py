"""The suite of ops catches each planted fault by the case meant for it."""

from __future__ import annotations

import pytest
from planted import ops
from planted.faults import check, component_of, passes


@pytest.mark.parametrize("fault", ops.FAULTS, ids=str)
def test_a_planted_fault_is_caught_and_explained(fault):
    check("op", fault)


def test_a_sound_op_passes_every_case():
    sound = component_of(ops.echo, name=ops.SOUND.name, target="planted.ops:SOUND")
    assert len(passes("op", sound)) > 10
