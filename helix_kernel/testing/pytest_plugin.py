"""``pytest --helix-provider NAME``: runs the conformance suites on what a provider declares."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

_CASES = Path(__file__).with_name("provider_cases.py")


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
        named = config.args_source is config.ArgsSource.ARGS
        config.args = [*(config.args if named else []), str(_CASES)]
        config.addinivalue_line("python_files", _CASES.name)
