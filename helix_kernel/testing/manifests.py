"""The conformance suite of manifests: what a plugin declares must be cheap, true and consistent."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import attrs
import pytest

from helix_kernel.config.schema import schema_of
from helix_kernel.plugins import HEAVY_MODULES
from helix_kernel.targets import load_target

if TYPE_CHECKING:
    from helix_kernel.component import Component
    from helix_kernel.plugins import Plugin


class ManifestSuite:
    """Pytest class of a plugin's manifest. A subclass gives the fixture `plugin`."""

    def test_importing_it_imports_nothing_heavy(self, plugin: Plugin) -> None:
        found = _heavy_after(f"import {plugin.module}")
        assert not found, f"importing {plugin.module} imports {found}; import them where they are used"

    def test_config_classes_import_nothing_heavy(self, plugin: Plugin) -> None:
        modules = sorted({c.config.partition(":")[0] for c in plugin.components if c.config})
        found = _heavy_after("; ".join(f"import {module}" for module in modules))
        assert not found, f"config modules {modules} import {found}: checking a config would load them"

    def test_every_hook_is_known(self, plugin: Plugin) -> None:
        assert not plugin.unknown_hooks, f"no installed kind has the hooks {plugin.unknown_hooks}"

    def test_every_component_has_a_summary(self, plugin: Plugin) -> None:
        silent = [component.name for component in plugin.components if not component.summary.strip()]
        assert not silent, f"no summary: {silent}"


class ComponentSuite:
    """Pytest class of one component's declaration. A subclass gives the fixture `component`."""

    def test_its_target_can_be_imported(self, component: Component) -> None:
        load_target(component)

    def test_its_config_class_agrees_with_its_target(self, component: Component) -> None:
        if component.config is None:
            pytest.skip("the schema is read from the target's signature")
        options = schema_of(component).options
        parameters = inspect.signature(load_target(component)).parameters
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            unknown = sorted(set(options) - set(parameters))
            assert not unknown, f"{component.target} takes no {unknown}, which {component.config} offers"
        required = [n for n, p in parameters.items() if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
        missing = [name for name in required if name not in options]
        assert not missing, f"{component.target} requires {missing}, which {component.config} lacks"

    def test_its_defaults_are_allowed(self, component: Component) -> None:
        if component.config is None:
            pytest.skip("the schema is read from the target's signature")
        for option in schema_of(component).options.values():
            attribute = option.attribute
            if attribute is not None and attribute.validator and option.default not in (attrs.NOTHING, None):
                attribute.validator(None, attribute, option.default)


def _heavy_after(statement: str) -> list[str]:
    script = f"import sys\n{statement}\nprint(*[m for m in {HEAVY_MODULES!r} if m in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(  # noqa: S603 - our own interpreter and statement
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True
    )
    return done.stdout.split()
