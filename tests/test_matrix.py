"""The pieces of `make matrix`: what it demands of a wheel, what it isolates, and that a bad row fails it."""

import sys
import zipfile
from functools import partial

import pytest
from matrix import __main__ as matrix
from matrix import environments, probes, wheels
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

METADATA = """\
Metadata-Version: 2.4
Name: acme
Version: 0.1.0
Summary: What acme does.
License-Expression: MIT
Requires-Python: >=3.11
Requires-Dist: helix-kernel>=0.1,<0.2
Requires-Dist: attrs>=24.2
Requires-Dist: numpy
Requires-Dist: pytest>=8.3; extra == "testing"
Provides-Extra: testing

How to use acme.
"""


def make_wheel(folder, *, name="acme", version="0.1.0", metadata=METADATA, without=(), more=()):
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": "",
        f"{name}/py.typed": "",
        f"{info}/METADATA": metadata,
        f"{info}/licenses/LICENSE": "MIT",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
        **dict.fromkeys(more, ""),
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for file, text in files.items():
            if not any(file.endswith(end) for end in without):
                archive.writestr(file, text)
    return wheel


def test_a_good_wheel_has_no_fault(tmp_path):
    assert wheels.faults(make_wheel(tmp_path)) == []


def test_what_helix_new_copies_may_hold_tests(tmp_path):
    assert wheels.faults(make_wheel(tmp_path, more=["acme/templates/layer/tests/test_layer.py.tmpl"])) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"without": ["LICENSE"]}, "no acme-0.1.0.dist-info/licenses/LICENSE"),
        ({"without": ["py.typed"]}, "no acme/py.typed"),
        ({"more": ["acme/tests/support.py"]}, "a test: acme/tests/support.py"),
        ({"more": ["test_acme.py"]}, "a test: test_acme.py"),
        ({"metadata": METADATA.replace("MIT", "Whatever I like")}, "license"),
        ({"metadata": METADATA.replace("0.1.0", "newest")}, "version"),
        ({"metadata": METADATA.replace("attrs>=24.2", "attrs=>24.2")}, "requires-dist"),
        ({"metadata": METADATA.replace("Summary: What acme does.\n", "")}, "no summary"),
        ({"metadata": METADATA.partition("\n\n")[0] + "\n"}, "no description"),
    ],
    ids=["license", "types", "tests", "test", "spdx", "version", "requirement", "summary", "readme"],
)
def test_a_fault_of_a_wheel_is_named(tmp_path, changes, words):
    (fault,) = wheels.faults(make_wheel(tmp_path, **changes))
    assert words in fault


def test_lower_bounds_are_those_of_what_is_always_required(tmp_path):
    wheel = make_wheel(tmp_path)
    assert wheels.lower_bounds(wheel) == ["attrs==24.2"]
    assert wheels.extras(wheel) == {"pytest"}
    assert wheels.kernel_range(wheel) == SpecifierSet(">=0.1,<0.2")


def test_the_lowest_kernel_is_that_of_the_range(tmp_path):
    kernels = [make_wheel(tmp_path, name="kernel", version=f"0.{n}") for n in ("2.0", "1.10", "1.9", "0.9")]
    lowest = partial(wheels.lowest_kernel, kernels=kernels)
    assert wheels.version_of(lowest(SpecifierSet(">=0.1,<0.2"))).public == "0.1.9"
    assert wheels.version_of(lowest(SpecifierSet(">=0.1.10"))).public == "0.1.10"
    with pytest.raises(LookupError, match=r"no kernel in >=0\.3"):
        lowest(SpecifierSet(">=0.3"))


def test_all_licenses_are_one():
    for folder in wheels.PROJECTS.values():
        assert (folder / "LICENSE").read_text() == (wheels.ROOT / "LICENSE").read_text()


def test_what_is_linked_is_what_is_required_and_none_of_ours():
    found = {distribution.name.lower() for distribution in environments.closure([Requirement("zarr")])}
    assert {"zarr", "numpy", "numcodecs"} <= found
    assert not found & {"torch", "attrs", *wheels.PROJECTS}
    needs_ours = [Requirement("helix-kernel"), Requirement("attrs")]
    assert [distribution.name for distribution in environments.closure(needs_ours)] == ["attrs"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """An environment with acme, which imports numpy as it may, and rich, which it does not require."""
    folder = tmp_path_factory.mktemp("matrix")
    wheel = make_wheel(folder, metadata=METADATA.replace("Requires-Dist: helix-kernel>=0.1,<0.2\n", ""))
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("acme/declared.py", "import attrs, numpy\n")
        archive.writestr("acme/optional.py", "import pytest\n")
        archive.writestr("acme/undeclared.py", "import rich\n")
        archive.writestr("acme/broken.py", "1 / 0\n")
    return environments.linked(folder / "venv", [wheel]), wheel


def test_an_undeclared_import_is_found_and_nothing_of_this_python_is_there(environment):
    made, wheel = environment
    with pytest.raises(environments.FailedError) as caught:
        probes.every_module(made, wheel)
    assert "acme.undeclared: rich" in str(caught.value)
    assert "acme.broken: ZeroDivisionError" in str(caught.value)
    assert "acme.declared" not in str(caught.value)
    assert "acme.optional" not in str(caught.value)
    with pytest.raises(environments.FailedError, match="No module named 'helix_kernel'"):
        made.run(made.python, "-c", "import helix_kernel")


def test_a_requirement_that_does_not_fit_is_found(tmp_path):
    wheel = make_wheel(tmp_path, metadata=METADATA.replace("attrs>=24.2", "attrs<20"))
    with pytest.raises(environments.FailedError, match="attrs<20"):
        environments.linked(tmp_path / "venv", [wheel])


def test_a_row_that_fails_is_told_and_fails_the_matrix(monkeypatch, capsys, tmp_path):
    bad = make_wheel(tmp_path, without=["py.typed"])
    good = make_wheel(tmp_path, name="good")
    monkeypatch.setattr(wheels, "build_all", lambda _: {wheels.KERNEL: good, "acme": bad})
    monkeypatch.setattr(sys, "argv", ["matrix", "--only", "wheel of"])
    assert matrix.main() == 1
    out = capsys.readouterr().out
    assert "it has no acme/py.typed" in out
    assert "1 of 2 rows passed" in out
