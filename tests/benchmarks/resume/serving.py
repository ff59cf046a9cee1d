"""Runs each job in a fork of a process that has imported everything: a run then starts at once."""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

from resume_task import Job

if TYPE_CHECKING:
    from collections.abc import Callable


def serve(main: Callable[[Job], None]) -> None:
    """Run the jobs on standard input, a line each, in a process each; print the exit codes."""
    for line in sys.stdin:
        job = Job(**json.loads(line))
        sys.stdout.flush()
        process = os.fork()
        if not process:
            _work(main, job)
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _work(main: Callable[[Job], None], job: Job) -> NoReturn:
    """Run a job in this process, and end it."""
    log = os.open(job.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.environ.update(job.environment())
    code = 1
    try:
        main(job)
        code = 0
    except BaseException:  # noqa: BLE001 - whatever it is, the log tells it and this process ends
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
