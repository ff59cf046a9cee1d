"""A plugin with a callback one of whose options means something else when it comes from a file."""

from __future__ import annotations

import helix_kernel
from helix_kernel import Component
from helix_train.callbacks.base import Callback


class Patient(Callback):
    """Waits for so many steps; None, which TOML cannot hold, is for ever."""

    name = "patient"

    def __init__(self, *, patience: int | None = 3) -> None:
        self.patience = patience


@helix_kernel.hookimpl
def helix_callbacks():
    examples = ({"patience": 2}, {"patience": None})
    return [Component(name="patient", target=f"{__name__}:Patient", examples=examples)]
