"""The catalogue that ships with the kernel is what the first-party plugins in this repository offer."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from helix_kernel import Kernel, catalogue

ROOT = Path(__file__).parent.parent
DISTRIBUTIONS = {
    project["name"]: project
    for file in (*ROOT.glob("*/pyproject.toml"), *ROOT.glob("plugins/*/pyproject.toml"))
    for project in [tomllib.loads(file.read_text())["project"]]
}


@pytest.fixture(scope="module")
def kernel():
    kernel = Kernel(plugins=list(DISTRIBUTIONS))
    assert kernel.failures == ()
    return kernel


def test_every_distribution_of_the_repository_is_installed_and_a_plugin(kernel):
    assert len(DISTRIBUTIONS) >= 5
    assert {plugin.provider for plugin in kernel.plugins} == set(DISTRIBUTIONS)


def test_the_components_are_the_same(kernel):
    offered = {}
    for component in kernel.components():
        offered.setdefault(component.kind, {})[component.name] = component.provider
    assert offered == catalogue.COMPONENTS


def test_the_sections_are_the_same(kernel):
    own = {kind.section: kind.provider for kind in kernel.registry.sections.values()}
    assert own.keys() == catalogue.SECTIONS.keys()
    for section, provider in own.items():
        if provider != "helix-kernel":
            assert catalogue.SECTIONS[section] == provider


def test_the_hooks_of_these_kinds_are_known(kernel):
    assert {kernel.registry.kinds[name].hook for name in catalogue.KINDS} == catalogue.HOOKS


def test_the_kinds_that_plugins_bring_are_the_same(kernel):
    brought = {name: kind.provider for name, kind in kernel.registry.kinds.items()}
    assert {name: who for name, who in brought.items() if who != "helix-kernel"} == catalogue.KINDS


def test_a_distribution_is_found_by_component_and_by_kind():
    assert catalogue.distribution_of("layer", "mamba") == "helix-ssm"
    assert catalogue.distribution_of("layer", "nothing") is None
    assert catalogue.distribution_of("nothing", "mamba") is None
    assert catalogue.distribution_of_kind("dataset") == "helix-data"
    assert catalogue.distribution_of_kind("backend") is None
    assert {"helix-ssm", "helix-train", "helix-data"} <= catalogue.DISTRIBUTIONS
