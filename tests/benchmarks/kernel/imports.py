"""What importing the kernel costs, next to the libraries that it stands on."""

from __future__ import annotations

from functools import partial

from measure import Table, cpu_of_code, interleaved, milliseconds, verdict

LIMIT = 1.15
LIBRARIES = "import pluggy, attrs, cattrs"
CASES = {
    "`import helix_kernel`": "import helix_kernel",
    "the same, and every public name used": (
        "import helix_kernel\nfor name in helix_kernel.__all__: getattr(helix_kernel, name)"
    ),
    "`import helix_kernel.checkpoint` (with numpy)": "import helix_kernel.checkpoint",
}
LIMITED = "`import helix_kernel`"


def main(rounds: int = 15) -> Table:
    """Measure and return the table."""
    codes = {f"`{LIBRARIES}`": LIBRARIES, **CASES}
    times = interleaved({name: partial(cpu_of_code, code) for name, code in codes.items()}, rounds)
    base = times[f"`{LIBRARIES}`"]
    rows = [
        (
            name,
            milliseconds(seconds),
            f"{seconds / base:.2f}",
            f"{LIMIT}" if name == LIMITED else "",
            verdict(seconds / base, LIMIT) if name == LIMITED else "",
        )
        for name, seconds in times.items()
    ]
    note = (
        f"CPU time in a fresh process, after the interpreter's start; medians of {rounds} interleaved rounds."
    )
    return Table("Import", note, ("what", "CPU", "ratio", "limit", "met"), rows)
