"""Trains every mixer on every task, and keeps one line of JSON a run.

Usage: python tests/benchmarks/sequence/run.py [--tasks …] [--mixers …] [--seeds N] [--shard I/N] [--out FILE]

What the file has already is not run again, so that a stopped study goes on, and several processes may share
one file, each with a shard of the runs. `report.py` makes the tables.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import torch
from mixers import MIXERS
from results import once, share
from tasks import TASKS
from train import run

RESULTS = Path(__file__).with_name("results.jsonl")


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=TASKS)
    parser.add_argument("--mixers", nargs="*", default=list(MIXERS), choices=MIXERS)
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0")
    parser.add_argument("--shard", default="0/1", help="i/n: every n-th mixer and task, from the i-th")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    jobs = [(mixer, task) for task in arguments.tasks for mixer in arguments.mixers]
    for mixer, task in share(jobs, arguments.shard):
        for seed in range(arguments.seeds):
            key = {"mixer": mixer, "task": task, "seed": seed}
            once(arguments.out, key, partial(run, mixer, task, seed=seed))


if __name__ == "__main__":
    main()
