"""What listing plugins costs, cold and warm, next to pluggy's own loader."""

from __future__ import annotations

import compileall
import itertools
import os
import tempfile
import time
from functools import partial
from pathlib import Path

from measure import Table, cpu_of_code, interleaved, milliseconds, verdict

COUNTS = (10, 100, 1000)
COLD_LIMIT, WARM_LIMIT = 1 / 8, 1 / 100
LIMITED_COUNT = 1000

MANIFEST = '''"""A synthetic plugin."""
import helix_kernel
from helix_kernel import Component


@helix_kernel.hookimpl
def helix_layers():
    return [Component(name="layer-{index}", target="plugin_{index}.layers:Layer")]
'''
METADATA = "Metadata-Version: 2.1\nName: plugin-{index}\nVersion: 1.0\nSummary: A synthetic plugin.\n"
# Of a major version that nobody has: pluggy would import whatever else is installed, ours lists it.
GROUP = "helix_kernel.v0"
ENTRY_POINTS = f"[{GROUP}]\nplugin_{{index}} = plugin_{{index}}\n"

PLUGGY = (
    "import pluggy",
    f'count = pluggy.PluginManager("helix_kernel").load_setuptools_entrypoints("{GROUP}")',
)
OURS = ("from helix_kernel.discovery import entry_points", "count = len(entry_points())")


def main(rounds: int = 5) -> Table:
    """Measure and return the table."""
    rows = [row for count in COUNTS for row in _rows(count, rounds)]
    note = (
        "CPU time of one listing in a fresh process, without and with the import of the library that does "
        "it; distributions with a manifest module each, compiled beforehand. Cold: no cache on disk, and "
        "the cache is written. Warm: read from it. pluggy: `PluginManager.load_setuptools_entrypoints`, "
        f"which imports the manifests too. Medians of {rounds} interleaved rounds; the limits are for "
        f"{LIMITED_COUNT} plugins and the listing itself."
    )
    columns = ("plugins", "what", "listing", "ratio", "limit", "met", "with import", "ratio")
    return Table("Discovery", note, columns, rows)


def _rows(count: int, rounds: int) -> list[tuple[str, ...]]:
    with tempfile.TemporaryDirectory() as folder:
        site, caches = Path(folder, "site"), Path(folder, "caches")
        make_plugins(site, count)
        fresh = itertools.count()

        def cost(tool: tuple[str, str], cache: str, *, with_import: bool) -> float:
            setup, code = ("", "\n".join(tool)) if with_import else tool
            path = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))
            env = {"PYTHONPATH": path, "HELIX_CACHE_DIR": str(caches / cache)}
            return cpu_of_code(f"{code}\nassert count >= {count}, count", setup=setup, env=env)

        cost(OURS, "warm", with_import=False)
        if not list((caches / "warm").glob("entry-points-*.json")):
            raise RuntimeError(
                "the listing was not cached: a directory of sys.path has just changed; try again"
            )
        cases = {
            "pluggy": lambda with_import: cost(PLUGGY, "none", with_import=with_import),
            "cold": lambda with_import: cost(OURS, f"cold-{next(fresh)}", with_import=with_import),
            "warm": lambda with_import: cost(OURS, "warm", with_import=with_import),
        }
        alone = interleaved({name: partial(case, with_import=False) for name, case in cases.items()}, rounds)
        whole = interleaved({name: partial(case, with_import=True) for name, case in cases.items()}, rounds)
    limits = {"cold": COLD_LIMIT, "warm": WARM_LIMIT} if count == LIMITED_COUNT else {}
    return [
        (
            str(count),
            name,
            milliseconds(alone[name]),
            _share(alone[name] / alone["pluggy"]),
            _share(limits[name]) if name in limits else "",
            verdict(alone[name] / alone["pluggy"], limits[name]) if name in limits else "",
            milliseconds(whole[name]),
            _share(whole[name] / whole["pluggy"]),
        )
        for name in cases
    ]


def _share(ratio: float) -> str:
    return f"1/{1 / ratio:.0f}"


def make_plugins(site: Path, count: int) -> None:
    """Lay distributions out as an installer does, some time ago."""
    site.mkdir()
    for index in range(count):
        info = site / f"plugin_{index}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(METADATA.format(index=index))
        (info / "entry_points.txt").write_text(ENTRY_POINTS.format(index=index))
        (site / f"plugin_{index}.py").write_text(MANIFEST.format(index=index))
    compileall.compile_dir(site, quiet=1)
    earlier = time.time() - 60  # the listing keeps nothing of directories that have just changed
    os.utime(site, (earlier, earlier))
