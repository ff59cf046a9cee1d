"""The command `helix bench`."""

from __future__ import annotations

import json as _json
import os
from pathlib import Path  # noqa: TC003 - the command line reads the annotations
from typing import TYPE_CHECKING, Literal

from helix_kernel.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from helix_cpu.bench.contest import Contest, Row


def bench(
    what: Literal["ops"],
    /,
    *,
    ops: list[str] | None = None,
    threads: int = 1,
    rounds: int = 7,
    write: Path | None = None,
    json: bool = False,
) -> None:
    """Time our kernels beside what else there is on this machine: transformers, ggml, jax and others.

    Args:
        what: What to time: ops.
        ops: Only these, such as ``selective_scan``; all if left out.
        threads: How many threads each contestant has.
        rounds: How often each one runs; the median counts.
        write: A Markdown file to write the table to as well.
        json: Print one JSON object at the end, and nothing before.
    """
    _check(threads, rounds)
    os.environ.setdefault(
        "TRANSFORMERS_VERBOSITY", "error"
    )  # it is slow on purpose here, and need not say so
    from helix_cpu.bench import cases, machine, report, session

    contests = _chosen(cases.contests(threads), ops)
    head = machine.heading(_command(what, ops, threads, rounds), threads)

    def show(rows: Sequence[Row]) -> None:
        if not json:
            print(report.lines(rows), flush=True)

    if not json:
        print(f"{head}\n{report.header()}", flush=True)
    rows = session.run(contests, threads=threads, rounds=rounds, show=show)
    if json:
        print(_json.dumps({"heading": head, "rows": [report.values(row) for row in rows]}))
    if write is not None:
        write.parent.mkdir(parents=True, exist_ok=True)
        write.write_text(f"{head}\n{report.header()}\n{report.lines(rows)}\n\n{report.NOTES}")


def _check(threads: int, rounds: int) -> None:
    from helix_cpu.transformers.startup import VARIABLE

    for name, value in {"threads": threads, "rounds": rounds}.items():
        if value < 1:
            raise InputError(f"--{name} is {value}, allowed is >= 1")
    if os.environ.get(VARIABLE, "0") != "0":
        raise InputError(
            f"{VARIABLE} is set, so transformers runs on our kernels here: unset it to compare with its own"
        )


def _chosen(contests: list[Contest], ops: list[str] | None) -> list[Contest]:
    known = list(dict.fromkeys(contest.op for contest in contests))
    for op in ops or ():
        if op not in known:
            raise InputError(
                f"--ops {op}: nothing of that name is timed, allowed is {known}.{did_you_mean(op, known)}"
            )
    return [contest for contest in contests if ops is None or contest.op in ops]


def _command(what: str, ops: list[str] | None, threads: int, rounds: int) -> str:
    words = [f"helix bench {what}", *(f"--ops {op}" for op in ops or ())]
    return " ".join([*words, f"--threads {threads} --rounds {rounds}"])
