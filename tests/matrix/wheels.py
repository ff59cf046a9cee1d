"""The wheels of all our distributions: built from the working tree, and what each must hold."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from packaging.metadata import InvalidMetadata, Metadata
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

ROOT = Path(__file__).parents[2]
_FOLDERS = [
    ROOT,
    *sorted(ROOT.glob("plugins/*")),
    ROOT / "helix-cpu",
    ROOT / "helix-cuda",
    ROOT / "helix-topo",
    ROOT / "helix-multimodal",
]
KERNEL = "helix-kernel"


def declared(folder):
    return tomllib.loads((folder / "pyproject.toml").read_text())["project"]


PROJECTS = {declared(folder)["name"]: folder for folder in _FOLDERS}


def build_all(into):
    """Return the wheel of each distribution by its name; pip builds those that a folder lacks."""
    return {name: build(folder, into / name) for name, folder in PROJECTS.items()}


def build(folder, into):
    if there := [*into.glob("*.whl")]:
        return there[0]
    # Where helix-cpu's build finds cmake and ninja.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", into]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, folder], check=True, env={**os.environ, "PATH": path}
    )
    (wheel,) = into.glob("*.whl")
    return wheel


def version_of(wheel):
    return parse_wheel_filename(wheel.name)[1]


def metadata_of(wheel):
    """Return a wheel's metadata, checked by the standard's rules; raises a group of `InvalidMetadata`."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Metadata.from_email(archive.read(name), validate=True)


def faults(wheel):
    """Return what is wrong with a wheel, a line each."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    package = wheel.name.partition("-")[0]
    info = "-".join(wheel.name.split("-")[:2]) + ".dist-info"
    needed = [f"{info}/licenses/LICENSE", f"{package}/py.typed"]
    found = [f"it has no {name}" for name in needed if name not in names]
    found += [f"it holds a test: {name}" for name in names if _is_test(name)]
    try:
        metadata = metadata_of(wheel)
    except ExceptionGroup as group:
        return found + [str(error) for error in group.exceptions]
    except InvalidMetadata as error:
        return [*found, str(error)]
    missing = [
        field
        for field in ("summary", "description", "license_expression", "requires_python")
        if not getattr(metadata, field)
    ]
    return found + [f"its metadata have no {field}" for field in missing]


def _is_test(name):
    # What `helix new` copies holds the tests of what it makes; a suite for others is no test of ours.
    parts = name.split("/")
    return "templates" not in parts and ("tests" in parts or parts[-1].startswith("test_"))


def requirements(wheel, extra=""):
    """Return what a wheel requires in this Python, with one of its extras if that is named."""
    lines = metadata_of(wheel).requires_dist or []
    return [line for line in lines if line.marker is None or line.marker.evaluate({"extra": extra})]


def extra_requirements(wheel):
    """Return what some extra of a wheel requires."""
    names = metadata_of(wheel).provides_extra or []
    return [line for name in names for line in requirements(wheel, name) if line.marker]


def extras(wheel):
    """Return the names of all that some extra of a wheel requires besides."""
    always = {line.name for line in requirements(wheel)}
    return {canonicalize_name(line.name) for line in extra_requirements(wheel)} - always


def kernel_range(wheel):
    """Return the range of kernels that a plugin's wheel allows."""
    (line,) = [line for line in requirements(wheel) if line.name == KERNEL]
    return line.specifier


def lowest_kernel(allowed, kernels):
    """Return the wheel of the lowest kernel in a range, of those that there are.

    Raises:
        LookupError: None is in the range.
    """
    fitting = [wheel for wheel in kernels if allowed.contains(version_of(wheel), prereleases=True)]
    if not fitting:
        raise LookupError(f"no kernel in {allowed}: there are {sorted(map(str, map(version_of, kernels)))}")
    return min(fitting, key=version_of)


def lower_bounds(wheel):
    """Return ``name==version`` for the least version of each requirement that says one."""
    return [
        f"{line.name}=={bound}"
        for line in requirements(wheel)
        if line.name != KERNEL and (bound := lower_bound(line.specifier))
    ]


def lower_bound(allowed: SpecifierSet) -> Version | None:
    bounds = [Version(one.version) for one in allowed if one.operator in (">=", "==", "~=")]
    return max(bounds, default=None)
