"""The suite of ops catches each planted fault by the case meant for it."""

from __future__ import annotations

import pytest
from planted import ops
from planted.faults import check


@pytest.mark.parametrize("fault", ops.FAULTS, ids=str)
def test_a_planted_fault_is_caught_and_explained(fault):
    check("op", fault)
