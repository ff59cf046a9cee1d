"""The head of a report: what became of the run, in a dozen numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helix_train.report.cost import UNIT
from helix_train.report.html import Markup, element
from helix_train.report.numbers import amount, count, duration, moment, percent, significant
from helix_train.run_directory import number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helix_train.report.cost import Cost
    from helix_train.run_file import RunRecord

Tile = tuple[str, str, str]
"""Label, value, and a note below."""


def headline(name: str, record: RunRecord, cost: Cost, unit: str, speed: float | None) -> Markup:
    """Return the header of the page.

    Args:
        name: Of the run.
        record: What is known of it.
        cost: Of its training loss.
        unit: Of that loss, ``bits_per_byte`` or ``loss``.
        speed: Tokens per second, where they were measured.
    """
    state = record.state()
    error = [element("p", {"class": "error"}, record.error)] if record.error else []
    facts = [*_loss(record, cost, unit), *_work(record, speed), *_price(cost, unit)]
    return element(
        "header",
        None,
        element("p", {"class": "eyebrow"}, "Helix run"),
        element("h1", None, name, " ", element("span", {"class": f"state {state}"}, state)),
        element("p", {"class": "when"}, _when(record)),
        *error,
        element("dl", {"class": "tiles"}, *(_tile(*fact) for fact in facts)),
    )


def _tile(label: str, value: str, note: str) -> Markup:
    below = [element("dd", {"class": "note"}, note)] if note else []
    return element("div", None, element("dt", None, label), element("dd", None, value), *below)


def _loss(record: RunRecord, cost: Cost, unit: str) -> Iterator[Tile]:
    evaluation = record.evaluation
    bits, loss, accuracy = (number(evaluation, name) for name in ("bits_per_byte", "loss", "accuracy"))
    if accuracy is not None:
        yield "Accuracy", percent(accuracy), "held out"
    if bits is not None:
        yield "Bits per byte", significant(bits), "held out"
    if loss is not None:
        yield "Loss", significant(loss), "held out, nats" if bits is not None else "held out"
    if len(cost.loss):
        last = cost.loss.smoothed().values[-1]
        words = unit.replace("_", " ")
        yield "Training loss", significant(last), f"{words}, smoothed" if unit != "loss" else "smoothed"


def _work(record: RunRecord, speed: float | None) -> Iterator[Tile]:
    of = f"of {count(record.steps)}" if record.steps is not None else ""
    yield "Steps", count(record.step), of
    yield "Time", duration(record.wall_time), f"{len(record.resumes)} resumed" if record.resumes else ""
    if record.tokens_per_step:
        tokens = f"{count(record.tokens_per_step)} a step"
        yield "Tokens", amount(record.tokens_per_step * record.step), tokens
    if speed is not None:
        yield "Speed", amount(speed, "tok/s"), "median"
    if record.n_parameters is not None:
        yield "Parameters", amount(record.n_parameters), ""
    if record.flops_per_step is not None:
        flops = record.flops_per_step * record.step
        yield "Work", amount(flops, "FLOP"), f"{amount(record.flops_per_step, 'FLOP')} a step"


def _price(cost: Cost, unit: str) -> Iterator[Tile]:
    last, average = cost.last(), cost.average()
    if last is None or average is None:
        return
    words = "bits" if unit == "bits_per_byte" else "loss"
    if last.seconds is not None and average.seconds is not None:
        note = f"{duration(average.seconds)} on average"
        yield f"Time of last {UNIT:g} {words}", duration(last.seconds), note
    if last.flops is not None and average.flops is not None:
        note = f"{amount(average.flops, 'FLOP')} on average"
        yield f"Work of last {UNIT:g} {words}", amount(last.flops, "FLOP"), note


def _when(record: RunRecord) -> str:
    parts = [
        f"started {moment(record.started_at)}" if record.started_at else "",
        f"ended {moment(record.ended_at)}" if record.ended_at else "",
        f"on {record.environment['device']}" if "device" in record.environment else "",
        f"torch {record.environment['torch']}" if "torch" in record.environment else "",
    ]
    return " · ".join(part for part in parts if part)
