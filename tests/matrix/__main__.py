"""`python -m matrix`, with tests/ on the path: our wheels in clean environments, and what works there.

Usage: python -m matrix [--only WORD] [--linked] [--wheels FOLDER] [--kernels FOLDER]

Rows: the kernel alone, with the newest and with the lowest versions of what it requires; the kernel and each
plugin; each plugin and the lowest kernel that its range allows; everything. Exit code 1 when one fails.

`environments` says what a row isolates. The kernel alone and everything are installed by pip, all others are
linked. Of a range, the lowest kernel is taken whose wheel there is: that of the working tree, and those in
`--kernels`, where released wheels are put. Where this is the working tree's, one row is for both.
"""

import argparse
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from matrix import environments, probes, wheels

COMPANIONS = {"helix-ray": ("helix-train",)}
"""Plugins with components of a kind that another plugin brings; they conform where that is installed, too."""
CONSTRAINTS = wheels.ROOT / "constraints.txt"


def main():
    """Build the wheels, try every row, print a line for each, and say by the exit code how it went."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="matrix-") as folder:
        built = wheels.build_all((arguments.wheels or Path(folder, "wheels")).absolute())
        kernels = [built[wheels.KERNEL], *(arguments.kernels.glob("*.whl") if arguments.kernels else ())]
        rows = list(table(built, kernels, linked_only=arguments.linked))
        chosen = [(name, row) for name, row in rows if arguments.only in name]
        failed = [
            name
            for number, (name, row) in enumerate(chosen)
            if not _try(name, row, Path(folder) / f"{number}")
        ]
    print(f"{len(chosen) - len(failed)} of {len(chosen)} rows passed")
    return 1 if failed or not chosen else 0


def table(built, kernels, *, linked_only=False):
    """Yield the name of each row, and what is to be done with a folder for it, which returns a remark."""
    plugins = {name: wheel for name, wheel in built.items() if name != wheels.KERNEL}
    kernel = built[wheels.KERNEL]
    for name, wheel in built.items():
        yield f"wheel of {name}", partial(_wheel, wheel)
    yield "kernel alone", partial(_kernel_alone, kernel, linked_only=linked_only)
    yield "kernel, lowest requirements", partial(_lowest_requirements, kernel)
    for name, wheel in plugins.items():
        companions = [built[other] for other in COMPANIONS.get(name, ())]
        yield f"kernel + {name}", partial(_plugin, kernel, wheel, companions)
        lowest = wheels.lowest_kernel(wheels.kernel_range(wheel), kernels)
        if lowest != kernel:
            yield f"lowest kernel + {name}", partial(_plugin, lowest, wheel, companions)
    yield "everything", partial(_everything, list(built.values()), linked_only=linked_only)


def _try(name, row, folder):
    begun = time.monotonic()
    try:
        told, remark = "ok", row(folder)
    except (environments.FailedError, LookupError) as error:
        told, remark = "FAILED", str(error)
    print(f"{name:32} {told:7} {time.monotonic() - begun:6.1f} s  {remark}", flush=True)
    return told == "ok"


def _wheel(wheel, _folder):
    if found := wheels.faults(wheel):
        raise environments.FailedError("; ".join(found))
    return wheel.name


def _kernel_alone(kernel, folder, *, linked_only):
    environment = _make(folder, [kernel], linked_only=linked_only)
    probes.kernel_alone(environment)
    probes.every_module(environment, kernel)
    return "linked" if linked_only else "by pip"


def _lowest_requirements(kernel, folder):
    folder.mkdir()
    limits = folder / "lowest.txt"
    limits.write_text("\n".join(wheels.lower_bounds(kernel)))
    probes.kernel_alone(environments.installed(folder / "venv", [kernel], constraints=[limits]))
    return "by pip, " + " ".join(wheels.lower_bounds(kernel))


def _plugin(kernel, wheel, companions, folder):
    environment = environments.linked(folder, [kernel, wheel])
    probes.every_module(environment, wheel)
    probes.plugin(environment, wheel, companions)
    return f"linked, kernel {wheels.version_of(kernel)} of {wheels.kernel_range(wheel)}"


def _everything(own, folder, *, linked_only):
    probes.everything(_make(folder, own, linked_only=linked_only))
    return "linked" if linked_only else "by pip"


def _make(folder, own, *, linked_only):
    if linked_only:
        return environments.linked(folder, own)
    return environments.installed(folder, own, constraints=[CONSTRAINTS])


def _arguments():
    parser = argparse.ArgumentParser(
        prog="python -m matrix", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="rows whose name has this in it")
    parser.add_argument(
        "--linked", action="store_true", help="nothing by pip but where versions are the point"
    )
    parser.add_argument(
        "--wheels", type=Path, help="a folder of our wheels, to which those it lacks are added"
    )
    parser.add_argument("--kernels", type=Path, help="a folder of wheels of earlier kernels")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
