"""A plugin whose callback kills its own worker in mid-run, once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from torch import distributed

import helix_kernel
from helix_kernel import Component
from helix_train.callbacks.base import Callback


class Killer(Callback):
    """Kill the last rank after a step, unless the file says that it has done so; and note who trained."""

    def __init__(self, after: int, file: str):
        self.after, self.file = after, Path(file)

    def stepped(self, trainer):
        last = distributed.get_world_size() - 1
        if trainer.step + 1 == self.after and distributed.get_rank() == last and not self.file.exists():
            self.file.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)


@helix_kernel.hookimpl
def helix_callbacks():
    return [Component(name="killer", target=f"{__name__}:Killer")]
