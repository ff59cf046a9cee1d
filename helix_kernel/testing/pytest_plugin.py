"""``pytest --helix-provider NAME``: runs the conformance suites on what a provider declares."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

_CASES = Path(__file__).with_name("provider_cases.py")
_LEFT_OUT = pytest.StashKey[Counter[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option ``--helix-provider``."""
    parser.getgroup("helix").addoption(
        "--helix-provider",
        metavar="NAME",
        help="run Helix's conformance suites on every component that this distribution declares",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Collect the suites in place of the tests that pytest would have found by itself."""
    if config.getoption("--helix-provider"):
        named = config.args if config.args_source is config.ArgsSource.ARGS else []
        some_of_them = any(_CASES.name in argument for argument in named)  # by their ids, to run them again
        config.args = [*named, *([] if some_of_them else [str(_CASES)])]


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Derive the cases of the provider where pytest comes to their file."""
    if module_path != _CASES or not parent.config.getoption("--helix-provider"):
        return None
    from helix_kernel.testing.provider_cases import ProviderCases

    collector: pytest.Module = ProviderCases.from_parent(parent, path=module_path)
    return collector


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the cases of suites that do not apply, and mark those that are known to fail."""
    if "helix_kernel.testing.suite" not in sys.modules:  # then no test is a suite's
        return
    from helix_kernel.testing.provider_cases import expect_failures, leave_out

    without = leave_out(items)
    expect_failures(items, without)
    if without:
        config.stash[_LEFT_OUT] = Counter(without.values())
        items[:] = [item for item in items if item not in without]
        config.hook.pytest_deselected(items=list(without))


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """Say what was left out, so that nothing is missing in silence."""
    left_out = config.stash.get(_LEFT_OUT, Counter()).most_common()
    return [f"helix: left out {count} cases that are for {what}" for what, count in left_out]
