"""The cases that ``pytest --helix-provider NAME`` derives from what a provider declares."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from helix_kernel import default_kernel
from helix_kernel.errors import DependencyError, HelixError, UnknownNameError, did_you_mean
from helix_kernel.testing.manifests import ComponentSuite, ManifestSuite
from helix_kernel.testing.suite import Suite

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from helix_kernel.component import Component, Kind
    from helix_kernel.kernel import Kernel
    from helix_kernel.plugins import Plugin, PluginFailure


class ProviderCases(pytest.Module):
    """Collects, in place of this module's own tests, the classes that a provider's components make."""

    def _getobj(self) -> ModuleType:
        module = ModuleType(__name__, __doc__)
        try:
            derived = derive(default_kernel(), self.config.getoption("--helix-provider"))
        except HelixError as error:
            raise self.CollectError(str(error)) from error
        vars(module).update(derived)
        return module

    def collect(self) -> Iterator[pytest.Class]:
        """Yield every derived class, whatever its name begins with."""
        for name, value in vars(self.obj).items():
            if isinstance(value, type):
                yield pytest.Class.from_parent(self, name=name)


def derive(kernel: Kernel, provider: str) -> dict[str, type[Suite]]:
    """Return a suite for each plugin of a provider, for each component, and for each of its examples.

    Args:
        kernel: What is installed.
        provider: Name of a distribution.

    Returns:
        The classes by name: ``manifest-ssm``, ``component-layer-mamba``, ``layer-mamba``, and where there
        are several examples ``layer-moe.1``, ``layer-moe.2``.

    Raises:
        UnknownNameError: No plugin of that provider is installed, or a component's `expected_failures` names
            a case that its suite lacks.
        DependencyError: A kind's suite cannot be imported.
    """
    plugins = [plugin for plugin in kernel.plugins if plugin.provider == provider]
    failures = [failure for failure in kernel.failures if failure.provider == provider]
    if not (plugins or failures):
        raise UnknownNameError(_unknown(provider, kernel))
    shared = {"kernel": kernel, "__module__": __name__}
    manifests: list[Plugin | PluginFailure] = [*plugins, *failures]
    classes: dict[str, type[Suite]] = {
        f"manifest-{found.name}": type(found.name, (ManifestSuite,), {"manifest": found, **shared})
        for found in manifests
    }
    for component in (component for plugin in plugins for component in plugin.components):
        known = {"component": component, **shared}
        classes[f"component-{component.kind}-{component.name}"] = type(
            component.name, (ComponentSuite,), known
        )
        suite = _suite_of(kernel.registry.kinds[component.kind])
        _check_expected_failures(suite or ComponentSuite, component)
        if suite is not None:
            classes |= dict(_of_examples(suite, component, known))
    return classes


def leave_out(items: Sequence[pytest.Item]) -> dict[pytest.Item, str]:
    """Return the cases that do not apply to their component, each with what it is for.

    A case stays where its suite cannot tell, since what it would have to make cannot be made: it fails then.
    """
    made: dict[type[Suite], Suite] = {}
    found: dict[pytest.Item, str] = {}
    for item in items:
        suite = getattr(item, "cls", None)
        if isinstance(item, pytest.Function) and isinstance(suite, type) and issubclass(suite, Suite):
            what = _left_out(made.setdefault(suite, suite()), item.originalname)
            if what is not None:
                found[item] = what
    return found


def expect_failures(items: Sequence[pytest.Item], without: Mapping[pytest.Item, str]) -> None:
    """Mark the cases that a component is known to fail: each must fail.

    Args:
        items: All cases.
        without: Those that do not apply.

    Raises:
        pytest.UsageError: A case is expected to fail that does not apply.
    """
    for item in items:
        component = getattr(getattr(item, "cls", None), "component", None)
        if component is None or not isinstance(item, pytest.Function):
            continue
        known = component.expected_failures
        reason = known.get(item.name, known.get(item.originalname))
        if reason is not None and item in without:
            raise pytest.UsageError(
                f"{component.kind} {component.qualified}: expected_failures names {item.originalname!r}, "
                f"which is for {without[item]} and does not apply: take it out"
            )
        if reason is not None:
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))


def _left_out(suite: Suite, case: str) -> str | None:
    try:
        return suite.left_out(case)
    except Exception:  # noqa: BLE001 - whatever making it raises, the case itself will raise and show
        return None


def _suite_of(kind: Kind) -> type[Suite] | None:
    if kind.suite is None:
        return None
    module, _, name = kind.suite.partition(":")
    whose = f"the kind {kind.name!r} of {kind.provider} names the suite {kind.suite!r}"
    try:
        suite = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise DependencyError(f"{whose}, which cannot be imported: {error}") from error
    if not (isinstance(suite, type) and issubclass(suite, Suite)):
        raise DependencyError(f"{whose}, which is no subclass of helix_kernel.testing.suite.Suite")
    return suite


def _of_examples(
    suite: type[Suite], component: Component, known: Mapping[str, Any]
) -> Iterator[tuple[str, type[Suite]]]:
    """Yield a subclass of the suite for each example, in the suite's own dress where it says so."""
    examples = component.examples or ({},)
    for number, example in enumerate(examples, start=1):
        name = f"{component.kind}-{component.name}" + (f".{number}" if len(examples) > 1 else "")
        supplied = {key: example[key] for key in suite.supplies if key in example}
        yield name, type(name, (suite,), {**known, "example": example, **supplied})


def _check_expected_failures(suite: type[Suite], component: Component) -> None:
    cases = sorted(name for name in {*dir(suite), *dir(ComponentSuite)} if name.startswith("test_"))
    for name in component.expected_failures:
        if name.partition("[")[0] not in cases:
            raise UnknownNameError(
                f"{component.kind} {component.qualified}: expected_failures names {name!r}, which is no case "
                f"of {suite.__name__}.{did_you_mean(name, cases)} Cases: {', '.join(cases)}"
            )


def _unknown(provider: str, kernel: Kernel) -> str:
    known = sorted({plugin.provider for plugin in kernel.plugins})
    return (
        f"--helix-provider: no plugin of {provider!r} is installed.{did_you_mean(provider, known)} "
        f"Installed: {', '.join(known)}"
    )
