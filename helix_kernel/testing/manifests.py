"""The conformance suite of manifests: what a plugin declares must be cheap, true and consistent."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any

from helix_kernel import catalogue, default_kernel
from helix_kernel.config.schema import schema_of
from helix_kernel.errors import ConfigError, HelixError, did_you_mean
from helix_kernel.plugins import HEAVY_MODULES, Plugin, PluginFailure
from helix_kernel.targets import load_target
from helix_kernel.testing.suite import Suite, applies_when

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from helix_kernel.component import Component
    from helix_kernel.kernel import Kernel

_LATER = "import them in the functions that use them"
_if_it_loads = applies_when(
    "manifests that load", lambda suite: not isinstance(suite.manifest, PluginFailure)
)
_if_it_has_a_config = applies_when(
    "components with a config class", lambda suite: suite.make_component().config is not None
)


def _its_parts_are_installed(suite: ComponentSuite) -> bool:
    """Whether no default or example names what another distribution of ours would bring."""
    if suite.make_component().config is None:
        return True
    errors = [error for _, _, error in _refusals(suite) if isinstance(error, ConfigError)]
    return not any(all("It comes with" in p.message for p in error.problems) for error in errors)


_if_its_parts_are_installed = applies_when(
    "components whose defaults and examples are installed", _its_parts_are_installed
)


class ManifestSuite(Suite):
    """Pytest class of a plugin's manifest.

    Attributes:
        manifest: The plugin, or why it did not load.
    """

    manifest: Plugin | PluginFailure | None = None

    def make_plugin(self) -> Plugin:
        """Return the plugin under test."""
        assert not isinstance(self.manifest, PluginFailure), (
            f"{self.manifest}; it offers nothing until that is mended. To see it: helix plugins\n"
            f"{self.manifest.traceback}"
        )
        if self.manifest is None:
            raise NotImplementedError(f"{type(self).__name__} must override make_plugin")
        return self.manifest

    def test_it_loads(self) -> None:
        self.make_plugin()

    @_if_it_loads
    def test_importing_it_imports_nothing_heavy(self) -> None:
        module = self.make_plugin().module
        found = _heavy_after(f"import {module}")
        assert not found, f"importing {module} imports {found}: {_LATER}" + self.see(
            f'python -X importtime -c "import {module}" 2>&1 | grep -w {found[0]}'
        )

    @_if_it_loads
    def test_config_classes_import_nothing_heavy(self) -> None:
        modules = sorted({c.config.partition(":")[0] for c in self.make_plugin().components if c.config})
        heavy = {module: found for module in modules if (found := _heavy_after(f"import {module}"))}
        see = self.see(*(f'python -X importtime -c "import {module}"' for module in heavy))
        assert not heavy, (
            f"config modules import what checking a config must not load, {heavy}: {_LATER}{see}"
        )

    @_if_it_loads
    def test_every_hook_is_known(self) -> None:
        # That of a kind of ours is known, although what brings the kind may not be installed.
        unknown = [hook for hook in self.make_plugin().unknown_hooks if hook not in catalogue.HOOKS]
        known = sorted(kind.hook for kind in (self.kernel or default_kernel()).registry.kinds.values())
        hints = " ".join(f"{name}:{did_you_mean(name, known) or ' nothing like it.'}" for name in unknown)
        assert not unknown, (
            f"no installed kind has the hooks {', '.join(unknown)}, so that what they offer is lost. {hints} "
            f"Known: {', '.join(known)}" + self.see("helix doctor")
        )

    @_if_it_loads
    def test_every_component_has_a_summary(self) -> None:
        silent = [f"{c.kind} {c.name}" for c in self.make_plugin().components if not c.summary.strip()]
        assert not silent, f"no summary, which `helix components` shows: {', '.join(silent)}" + (
            self.see("helix components")
        )

    @_if_it_loads
    def test_its_names_find_its_components(self) -> None:
        plugin, kernel = self.make_plugin(), self.kernel or default_kernel()
        for component in plugin.components:
            for name in component.names:
                spelling = f"{plugin.provider}:{name}"
                with warnings.catch_warnings(action="ignore"):  # of old names
                    found = _found(kernel, component.kind, spelling)
                assert found == component, (
                    f"{component.kind} {spelling!r} finds {found}, not {component.name!r}: "
                    "a provider's names and aliases must be its own"
                    + self.see(f"helix_kernel.default_kernel().find({component.kind!r}, {spelling!r})")
                )


class ComponentSuite(Suite):
    """Pytest class of one component's declaration: its `component` must be set."""

    def make_component(self) -> Component:
        """Return the component under test."""
        if self.component is None:
            raise NotImplementedError(f"{type(self).__name__} must override make_component")
        return self.component

    def test_its_target_can_be_imported(self) -> None:
        component = self.make_component()
        module, _, attribute = component.target.partition(":")
        try:
            load_target(component)
        except HelixError as error:
            raise AssertionError(str(error) + self.see(f"from {module} import {attribute}")) from error

    @_if_it_has_a_config
    def test_its_config_class_agrees_with_its_target(self) -> None:
        component = self.make_component()
        options = schema_of(component).options
        parameters = inspect.signature(load_target(component)).parameters
        see = self.see(f"inspect.signature({component.target})", f"attrs.fields({component.config})")
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            unknown = sorted(set(options) - set(parameters))
            assert not unknown, f"{component.target} takes no {unknown}, which {component.config} offers{see}"
        required = [n for n, p in parameters.items() if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
        missing = [name for name in required if name not in options]
        assert not missing, f"{component.target} requires {missing}, which {component.config} lacks{see}"

    @_if_it_has_a_config
    def test_its_defaults_are_the_targets(self) -> None:
        component = self.make_component()
        parameters = inspect.signature(load_target(component)).parameters
        for option in schema_of(component).options.values():
            default = (
                parameters[option.name].default if option.name in parameters else inspect.Parameter.empty
            )
            if option.nested or option.required or default is inspect.Parameter.empty:
                continue
            assert _like(option.default) == _like(default), (
                f"{option.name} is {option.default!r} by default in {component.config}, but {default!r} in "
                f"{component.target}: a config and a direct call would build different things"
                + self.see(f"inspect.signature({component.target})", f"attrs.fields({component.config})")
            )

    @_if_it_has_a_config
    @_if_its_parts_are_installed
    def test_its_defaults_are_allowed(self) -> None:
        component = self.make_component()
        for example, table, error in _refusals(self):
            with_example = (
                f" with the example {example}" if example else " (if they need more, declare examples)"
            )
            assert error is None, (
                f"{component.config} does not allow its own defaults{with_example}: {error}"
                + self.see(f"helix_kernel.default_kernel().build({component.kind!r}, {table})")
            )


def _refusals(suite: ComponentSuite) -> Iterator[tuple[Mapping[str, Any], dict[str, Any], HelixError | None]]:
    """Yield each example, its table with all defaults, and what refuses it, if anything does."""
    component, kernel = suite.make_component(), suite.kernel or default_kernel()
    options = schema_of(component).options.values()
    defaults = {option.name: option.default for option in options if not option.required}
    for example in component.examples or ({},):
        table = {"use": component.qualified, **defaults, **example}
        supplied = tuple(o.name for o in options if o.required and o.name not in example)
        try:
            kernel.resolver.resolve(component.kind, table, supplied=supplied)
        except HelixError as error:
            yield example, table, error
        else:
            yield example, table, None


def _heavy_after(statement: str) -> list[str]:
    script = f"import sys\n{statement}\nprint(*[m for m in {HEAVY_MODULES!r} if m in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(  # noqa: S603 - our own interpreter and statement
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True
    )
    return done.stdout.split()


def _found(kernel: Kernel, kind: str, name: str) -> Component | str:
    try:
        return kernel.find(kind, name)
    except HelixError as error:
        return f"nothing ({error})"


def _like(default: Any) -> Any:
    """Return a default so that a list and a tuple of the same values are equal."""
    return list(default) if isinstance(default, list | tuple) else default
