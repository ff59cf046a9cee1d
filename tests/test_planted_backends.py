"""The suite of backends passes a sound one and catches each planted fault by the case meant for it."""

from __future__ import annotations

import pytest
from planted import backends
from planted.faults import check, component_of, passes


@pytest.mark.parametrize("fault", backends.FAULTS, ids=str)
def test_a_planted_fault_is_caught_and_explained(fault):
    check("backend", fault)


def test_a_sound_backend_passes_every_case():
    assert len(passes("backend", component_of(backends.Sound))) > 15
