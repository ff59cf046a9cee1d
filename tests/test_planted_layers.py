"""The suite of layers passes sound layers and catches each planted fault by the case that is meant for it."""

from __future__ import annotations

import pytest
from planted import layers, layers_of_examples
from planted.faults import check, component_of, passes


@pytest.mark.parametrize("fault", [*layers.FAULTS, *layers_of_examples.FAULTS], ids=str)
def test_a_planted_fault_is_caught_and_explained(fault):
    check("layer", fault)


def test_a_sound_layer_passes_every_case():
    reports = passes("layer", component_of(layers.LeakySum))
    assert len(reports) > 25


def test_a_sound_layer_that_makes_inputs_of_its_own_passes_the_cases_of_examples_alone():
    reports = passes("layer", component_of(layers_of_examples.TwoParts))
    assert len(reports) == 10
    assert all("test_of_examples_" in report.nodeid for report in reports)
