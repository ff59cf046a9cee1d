"""What ``pytest --helix-provider NAME`` derives: from examples, and from failures that are expected."""

from __future__ import annotations

from types import ModuleType

import attrs
import pytest
from planted import layers, manifests
from planted.faults import PROVIDER, component_of, manifest_of, run, run_manifest

from helix_kernel import Kernel, Kind, default_kernel, hookimpl
from helix_kernel.errors import DependencyError, UnknownNameError
from helix_kernel.plugins import Manifest
from helix_kernel.testing.layers import LayerSuite
from helix_kernel.testing.provider_cases import derive

UNCHANGED = "test_inputs_are_not_changed"
SHAPE = "test_output_has_the_promised_shape_and_dtype"


def derived(component, kind="layer"):
    return derive(Kernel(manifests=[manifest_of({kind: [component]})]), PROVIDER)


def classes_of_layers(component):
    return {name: suite for name, suite in derived(component).items() if issubclass(suite, LayerSuite)}


def test_a_component_without_examples_is_one_class_of_its_kinds_suite():
    found = derived(component_of(layers.LeakySum))
    assert list(found) == ["manifest-planted", "component-layer-leaky-sum", "layer-leaky-sum"]
    assert issubclass(found["layer-leaky-sum"], LayerSuite)


def test_each_example_makes_the_cases_anew():
    found = classes_of_layers(component_of(layers.LeakySum, examples=({}, {"d_model": 4})))
    assert list(found) == ["layer-leaky-sum.1", "layer-leaky-sum.2"]
    one, two = (suite() for suite in found.values())
    assert (one.d_model, one.make_layer().out_proj.in_features) == (8, 8)
    assert (two.d_model, two.make_layer().out_proj.in_features) == (4, 4)


def test_a_required_option_that_no_example_gives_is_asked_for():
    (report,) = run("layer", component_of(layers.NeedsMore), UNCHANGED)
    assert report.failed
    asked = "layer planted:needs-more requires n_heads, which its suite cannot guess: declare examples"
    assert asked in report.longreprtext


def test_an_example_gives_the_required_option():
    (report,) = run("layer", component_of(layers.NeedsMore, examples=({"n_heads": 1},)), UNCHANGED)
    assert report.passed


def test_a_case_that_is_left_out_is_counted_in_the_header(capsys):
    reports = run("layer", component_of(layers.WrongAtOddLengths), "test_repeated_step_is_forward")
    said = capsys.readouterr().out
    assert "helix: left out 2 cases that are for layers that keep a state" in said
    assert "2 deselected" in said
    assert not reports


def test_a_failure_that_is_expected_is_no_failure():
    known = {UNCHANGED: "It works in place to save memory"}
    (report,) = run("layer", component_of(layers.InputsAreChanged, expected_failures=known), UNCHANGED)
    assert report.skipped
    assert report.wasxfail == "It works in place to save memory"


def test_a_failure_that_is_expected_and_does_not_come_is_one():
    known = {UNCHANGED: "It worked in place once"}
    (report,) = run("layer", component_of(layers.LeakySum, expected_failures=known), UNCHANGED)
    assert report.failed
    assert report.longreprtext == "[XPASS(strict)] It worked in place once"


def test_a_failure_may_be_expected_of_one_parameter_only():
    component = component_of(
        layers.BreaksAtOneToken, expected_failures={f"{SHAPE}[1-float32]": "Divides by 0"}
    )
    outcomes = {
        report.nodeid.rpartition("::")[2]: report.outcome for report in run("layer", component, SHAPE)
    }
    assert outcomes.pop(f"{SHAPE}[1-float32]") == "skipped"
    assert outcomes.pop(f"{SHAPE}[1-float64]") == "failed"
    assert set(outcomes.values()) == {"passed"}


@pytest.mark.parametrize("kind", ["layer", "command"])
def test_a_failure_that_is_expected_of_no_case_is_refused(kind):
    near = "test_its_target_can_be_imported"
    component = component_of(layers.LeakySum, expected_failures={near[:-1]: "Why not"})
    with pytest.raises(UnknownNameError, match=f"which is no case of .*Did you mean '{near}'"):
        derived(component, kind)


def test_a_failure_that_is_expected_of_a_case_that_does_not_apply_is_refused(capfd):
    known = {"test_repeated_step_is_forward": "It has no step"}
    component = component_of(layers.WrongAtOddLengths, expected_failures=known)
    assert not run("layer", component)
    said = capfd.readouterr()
    assert "which is for layers that keep a state and does not apply: take it out" in said.out + said.err


def test_a_provider_that_is_not_installed_is_named(capsys):
    assert not run_manifest(attrs.evolve(manifest_of({}), provider="plantet"), "manifest-planted")
    said = capsys.readouterr().out
    assert "no plugin of 'planted' is installed. Did you mean 'plantet'? Installed: helix-" in said


def test_every_kind_of_ours_has_a_suite_but_these():
    kinds = default_kernel().registry.kinds.values()
    assert {kind.name for kind in kinds if kind.suite is None} == {"command", "trainer"}


@pytest.mark.parametrize(
    ("suite", "message"),
    [
        ("planted.gone:Suite", "which cannot be imported: No module named 'planted.gone'"),
        ("planted.manifests:Gone", "which cannot be imported: module 'planted.manifests' has no attribute"),
        ("planted.manifests:DefaultsDiffer", "which is no subclass of helix_kernel.testing.suite.Suite"),
    ],
)
def test_a_kind_whose_suite_is_none_is_told(suite, message):
    module = ModuleType("manifest_of_codecs")
    kind = Kind(name="codec", plural="codecs", summary="Planted", suite=suite)
    module.helix_kinds = hookimpl(lambda: [kind], specname="helix_kinds")
    module.helix_codecs = hookimpl(lambda: [component_of(manifests.DefaultsDiffer)], specname="helix_codecs")
    manifest = Manifest(name=PROVIDER, provider=PROVIDER, version="1.0", module=module)
    with pytest.raises(DependencyError, match=f"the kind 'codec' of planted names the suite .*{message}"):
        derive(Kernel(manifests=[manifest]), PROVIDER)
