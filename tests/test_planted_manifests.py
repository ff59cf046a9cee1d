"""The suites of declarations catch each planted fault by the case that is meant for it."""

from __future__ import annotations

import re

import pytest
from planted import manifests
from planted.faults import component_of, manifest_of, run_manifest

from helix_kernel import hookimpl


@pytest.mark.parametrize("fault", manifests.FAULTS, ids=str)
def test_a_planted_fault_is_caught_and_explained(fault):
    component = component_of(fault.target, **fault.component)
    name = f"component-layer-{component.name}"
    (report,) = run_manifest(manifest_of({"layer": [component]}), name, fault.case)
    assert report.failed
    assert re.search(fault.message, report.longreprtext), report.longreprtext


def test_a_component_without_summary_is_named():
    component = component_of(manifests.TargetIsMissing, summary=" ")
    (report,) = run_manifest(
        manifest_of({"layer": [component]}), "manifest-planted", "test_every_component_has_a_summary"
    )
    assert "no summary, which `helix components` shows: layer target-is-missing" in report.longreprtext


def test_a_manifest_that_does_not_load_says_why():
    component = component_of(manifests.TargetIsMissing)
    twice = manifest_of({"layer": [component, component]})
    (report,) = run_manifest(twice, "manifest-planted", "test_it_loads")
    assert "it offers the layer 'target-is-missing' twice" in report.longreprtext


def test_a_manifest_that_imports_torch_is_told_so():
    heavy = manifest_of({"layer": [component_of(manifests.DefaultsDiffer)]}, name="planted.manifests")
    (report,) = run_manifest(heavy, "manifest-planted", "test_importing_it_imports_nothing_heavy")
    assert "importing planted.manifests imports ['torch'" in report.longreprtext
    assert "-X importtime" in report.longreprtext


def test_a_config_class_in_a_module_that_imports_torch_is_told_so():
    config = {"config": "planted.manifests:DefaultIsNotAllowedConfig"}
    manifest = manifest_of({"layer": [component_of(manifests.DefaultsDiffer, **config)]})
    (report,) = run_manifest(manifest, "manifest-planted", "test_config_classes_import_nothing_heavy")
    assert "checking a config must not load, {'planted.manifests': ['torch'" in report.longreprtext


def test_a_hook_of_no_kind_is_named_with_the_nearest():
    manifest = manifest_of({"layer": [component_of(manifests.DefaultsDiffer)]})
    manifest.module.helix_layrs = hookimpl(lambda: ())
    (report,) = run_manifest(manifest, "manifest-planted", "test_every_hook_is_known")
    assert "no installed kind has the hooks helix_layrs, so that what they offer" in report.longreprtext
    assert "Did you mean 'helix_layers'?" in report.longreprtext


def test_an_alias_that_is_another_components_name_is_refused():
    first = component_of(manifests.DefaultsDiffer)
    clash = component_of(manifests.ConfigDisagrees, aliases=("defaults-differ",))
    (report,) = run_manifest(manifest_of({"layer": [first, clash]}), "manifest-planted", "test_it_loads")
    assert "it offers the layer 'defaults-differ' twice" in report.longreprtext
