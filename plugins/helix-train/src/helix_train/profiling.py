"""Traces a few steps with PyTorch's profiler, where a run asks for it. Imports no torch before that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch.profiler import ProfilerActivity, profile, record_function

_ROWS = 40


class Profiler:
    """Writes down what happened in some steps: a trace for a browser, and a table of ops.

    The trace, such as ``trace-10-13.json``, is for ui.perfetto.dev or chrome://tracing; the table,
    ``ops-10-13.txt``, has the ops that took most time themselves.

    Args:
        steps: The first and the last step, counted from 1 as in ``metrics.jsonl``; None for no profile.
        directory: Where the files go; it is made.
        note: Shows a line to whoever watches.

    Raises:
        ArgumentError: The steps are not in order, or begin before 1.
    """

    def __init__(self, steps: tuple[int, int] | None, directory: Path, note: Callable[[str], None]) -> None:
        check_profiled(steps)
        self._wanted = steps
        self._directory = directory
        self._note = note
        self._running: profile | None = None
        self._span: record_function | None = None
        self._seen: list[int] = []

    def before(self, step: int) -> None:
        """Hear that a step is about to begin, the one before it done.

        Args:
            step: Its number, counted from 1.
        """
        if self._wanted is None:
            return
        first, last = self._wanted
        # A run that rolled back comes to steps that it has had, or to earlier ones.
        if self._running is not None and (step > last or step <= self._seen[-1]):
            self.close()
        elif self._running is not None or first <= step <= last:
            self._trace(step)

    def close(self) -> None:
        """Write down what was traced, though the run may have ended before the last of the steps."""
        if self._running is None:
            return
        running, self._running, self._wanted = self._running, None, None
        self._end_span()
        running.stop()
        try:
            self._write(running)
        except OSError as error:
            self._note(f"the profile could not be written: {error}")

    def _trace(self, step: int) -> None:
        from torch.profiler import profile, record_function

        if self._running is None:
            self._running = profile(activities=_activities())
            self._running.start()
        self._end_span()
        self._seen.append(step)
        self._span = record_function(f"step {step}")
        self._span.__enter__()  # type: ignore[no-untyped-call]  # torch's own lacks its types

    def _end_span(self) -> None:
        if self._span is not None:
            self._span.__exit__(None, None, None)
            self._span = None

    def _write(self, traced: profile) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        steps = f"{self._seen[0]}-{self._seen[-1]}"
        trace, table = (self._directory / name for name in (f"trace-{steps}.json", f"ops-{steps}.txt"))
        traced.export_chrome_trace(str(trace))
        table.write_text(_tables(traced), encoding="utf-8")
        self._note(f"profile of steps {steps}: {trace} (open it at ui.perfetto.dev), {table}")


def check_profiled(steps: tuple[int, int] | None) -> None:
    """Raise `ArgumentError` where steps to profile are not in order, or begin before 1."""
    if steps is not None and not 1 <= steps[0] <= steps[1]:
        raise ArgumentError(
            f"trainer.profile_steps is {list(steps)}, allowed are a first and a last step >= 1, as [10, 13]"
        )


def _activities() -> list[ProfilerActivity]:
    import torch
    from torch.profiler import ProfilerActivity

    on_device = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
    return [ProfilerActivity.CPU, *on_device]


def _tables(traced: profile) -> str:
    from torch.profiler import ProfilerActivity

    averages = traced.key_averages()
    orders = {"CPU": "self_cpu_time_total"}
    if ProfilerActivity.CUDA in traced.activities:
        orders["the accelerator"] = "self_device_time_total"
    return "\n".join(
        f"By their own time on {where}\n{averages.table(sort_by=order, row_limit=_ROWS)}"
        for where, order in orders.items()
    )
