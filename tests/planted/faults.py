"""Runs the cases that ``pytest --helix-provider`` derives for one component, in this process."""

from __future__ import annotations

import re
from types import ModuleType
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from helix_kernel import Component, Kernel, default_kernel, hookimpl
from helix_kernel.plugins import Manifest
from helix_kernel.testing import provider_cases

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PROVIDER = "planted"
# What is of no use to one quick run inside another.
_WITHOUT = ("cacheprovider", "faulthandler", "logging", "threadexception", "unraisableexception", "doctest")


@attrs.frozen
class Fault:
    """A wrong component, and how it must be found out.

    Args:
        target: The class or function that builds it, at the top of its module.
        case: Name of the suite's case that must fail.
        message: What the failure must say, a regular expression.
        component: Further fields of its `Component`, such as ``examples``.
    """

    target: Callable[..., Any]
    case: str
    message: str
    component: Mapping[str, Any] = attrs.field(factory=dict)

    def __str__(self) -> str:
        return f"{self.target.__name__}-{self.case.removeprefix('test_')}"


def check(kind: str, fault: Fault) -> None:
    """Fail unless the fault's case fails, and says what is wrong and how to see it."""
    component = component_of(fault.target, **fault.component)
    reports = run(kind, component, fault.case)
    assert reports, f"the suite of {kind} has no case {fault.case} for {component.name}"
    said = "\n".join(report.longreprtext for report in reports if report.failed)
    assert said, f"{fault} went through"
    assert re.search(fault.message, said), said


def passes(kind: str, component: Component) -> Sequence[pytest.TestReport]:
    """Fail unless every case of the suite passes; returns the reports."""
    reports = run(kind, component)
    wrong = [report.longreprtext for report in reports if not report.passed]
    assert not wrong, "\n".join(wrong)
    return reports


def component_of(target: Callable[..., Any], /, **fields: Any) -> Component:
    """Describe a class or function at the top of a module."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", target.__name__).lower().replace("_", "-")
    where = f"{target.__module__}:{target.__qualname__}"
    return Component(**{"name": words, "target": where, "summary": "Planted", **fields})


def run(kind: str, component: Component, case: str = "") -> list[pytest.TestReport]:
    """Run a component's derived cases of one name, or all; returns a report for each."""
    return run_manifest(manifest_of({kind: [component]}), f"{kind}-{component.name}", case)


def run_manifest(manifest: Manifest, name: str, case: str = "") -> list[pytest.TestReport]:
    """Run cases of the derived class `name` of a manifest's provider."""
    recorder = _Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provider_cases, "default_kernel", lambda: Kernel(manifests=[manifest]))
        patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        node = "::".join(filter(None, (provider_cases.__file__, name, case)))
        options = [part for plugin in _WITHOUT for part in ("-p", f"no:{plugin}")]
        options += [
            "-c",
            "/dev/null",
            "--tb=native",  # pytest's own parses whole files, which takes half of a quick run's time
            "--helix-provider",
            PROVIDER,
            "-p",
            "helix_kernel.testing.pytest_plugin",
        ]
        pytest.main([node, *options], plugins=[recorder])
    return recorder.reports


def manifest_of(components: Mapping[str, Sequence[Component]], name: str = "manifest_of_faults") -> Manifest:
    """Return a manifest of components by kind, as if a distribution had it."""
    module = ModuleType(name)
    kinds = default_kernel().registry.kinds
    for kind, offered in components.items():
        setattr(module, kinds[kind].hook, hookimpl(lambda offered=offered: list(offered)))
    return Manifest(name=PROVIDER, provider=PROVIDER, version="1.0", module=module)


class _Recorder:
    """Keeps the outcome of each case: of its set-up where that failed, and else of its call."""

    def __init__(self) -> None:
        self.reports: list[pytest.TestReport] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            self.reports.append(report)
