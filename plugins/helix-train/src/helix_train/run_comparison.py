"""Several runs side by side: what they differ in, how they ended, their losses at common steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from helix_train.options import ABOUT_THE_RUN, differing, options
from helix_train.records import read_records
from helix_train.report.curves import loss_unit
from helix_train.report.series import Series
from helix_train.run_directory import METRICS, TIMING, read_run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from helix_train.run_file import RunRecord

_STEPS = 10


@attrs.frozen(kw_only=True)
class Comparison:
    """What several runs have in common and what not; each tuple has a value for each run.

    Args:
        options: Those that differ, by path.
        results: By name.
        unit: Of the losses: ``bits_per_byte`` where all runs have that of training, else ``loss``.
        losses: The training losses at steps at which all runs recorded one.
    """

    options: dict[str, tuple[Any, ...]]
    results: dict[str, tuple[Any, ...]]
    unit: str
    losses: dict[int, tuple[float, ...]]


def compare(paths: Sequence[Path]) -> Comparison:
    """Compare runs.

    Raises:
        DataError: The files of a run are damaged.
    """
    records = [read_run(path) for path in paths]
    metrics = [read_records(path / METRICS) for path in paths]
    unit = "bits_per_byte" if all(loss_unit(lines) == "bits_per_byte" for lines in metrics) else "loss"
    results = [_results(record, path) for record, path in zip(records, paths, strict=True)]
    return Comparison(
        options=differing([options(record.config) for record in records], but=ABOUT_THE_RUN),
        results={name: tuple(one[name] for one in results) for name in results[0]},
        unit=unit,
        losses=_common([Series.of(lines, unit) for lines in metrics]),
    )


def _results(record: RunRecord, path: Path) -> dict[str, Any]:
    evaluation = record.evaluation or {}
    speeds = Series.of(read_records(path / TIMING), "tokens_per_second").values
    flops = record.flops_per_step
    return {
        "status": record.state(),
        "step": record.step,
        "held_out_loss": evaluation.get("loss"),
        "bits_per_byte": evaluation.get("bits_per_byte"),
        "accuracy": evaluation.get("accuracy"),
        "wall_time": record.wall_time,
        "tokens_per_second": float(np.median(speeds)) if len(speeds) else None,
        "parameters": record.n_parameters,
        "flops": None if flops is None else flops * record.step,
    }


def _common(losses: Sequence[Series]) -> dict[int, tuple[float, ...]]:
    by_step = [dict(zip(one.steps.tolist(), one.values.tolist(), strict=True)) for one in losses]
    common = sorted(set.intersection(*(set(table) for table in by_step)))
    at = np.unique(np.linspace(0, len(common) - 1, min(_STEPS, len(common))).round().astype(int))
    return {int(common[i]): tuple(table[common[i]] for table in by_step) for i in at}
