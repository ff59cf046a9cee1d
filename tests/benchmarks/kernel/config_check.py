"""What short commands cost: help, listing components, checking a config."""

from __future__ import annotations

import itertools
import tempfile
from functools import partial
from pathlib import Path

from measure import Table, cpu_of_process, interleaved, milliseconds, verdict

SOUND = """
[model]
use = "language-model"
vocab_size = 256
d_model = 64
n_layers = 2
mixer = { use = "mamba", d_state = 8 }

[data]
use = "text-bytes"
source = "python-docs"
seq_len = 128
batch_size = 4

[optimizer]
use = "adamw"
lr = 1e-3

[trainer]
steps = 10
"""
FIVE_MISTAKES = (
    SOUND.replace("d_state = 8", "d_stat = 8")
    .replace("n_layers = 2", "n_layers = -2")
    .replace('"adamw"', '"adamv"')
    .replace("seq_len = 128", 'seq_len = "long"')
    .replace("steps = 10", "steps = 10\nlog_evry = 5")
)
HELIX = ("-m", "helix_kernel.cli")
CASES: dict[str, tuple[tuple[str, ...], int, float | None]] = {
    "python -c pass": (("-c", "pass"), 0, None),
    "helix --help": ((*HELIX, "--help"), 0, 0.15),
    "helix components": ((*HELIX, "components"), 0, 0.15),
    "helix config check SOUND": ((*HELIX, "config", "check", "sound.toml"), 0, 0.3),
    "helix config check FIVE_MISTAKES": ((*HELIX, "config", "check", "mistakes.toml"), 2, 0.3),
}


def main(rounds: int = 11) -> Table:
    """Measure and return the table; the plugins measured are those installed."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        (directory / "sound.toml").write_text(SOUND)
        (directory / "mistakes.toml").write_text(FIVE_MISTAKES)
        fresh = itertools.count()

        def cost(name: str, *, warm: bool) -> float:
            arguments, expect, _ = CASES[name]
            env = {"HELIX_CACHE_DIR": str(directory / ("warm" if warm else f"cold-{next(fresh)}"))}
            return cpu_of_process(arguments, expect=expect, env=env, cwd=directory)

        warm = interleaved({name: partial(cost, name, warm=True) for name in CASES}, rounds)
        cold = interleaved({name: partial(cost, name, warm=False) for name in CASES}, rounds)
    rows = [(f"`{name}`", *_cells(warm[name], cold[name], limit)) for name, (_, _, limit) in CASES.items()]
    note = (
        "CPU time, user and system, of the whole process with the first-party plugins installed. "
        "Warm: the listing of plugins is cached, which the limits are for; first call: it is made "
        "and kept. A Python that does nothing is given for comparison. "
        f"Medians of {rounds} interleaved rounds."
    )
    return Table("Commands", note, ("command", "warm", "first call", "limit", "met"), rows)


def _cells(warm: float, cold: float, limit: float | None) -> tuple[str, ...]:
    bound = ("", "") if limit is None else (milliseconds(limit), verdict(warm, limit))
    return (milliseconds(warm), milliseconds(cold), *bound)
