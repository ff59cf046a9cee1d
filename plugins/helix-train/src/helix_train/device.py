"""Chooses the device that a run trains on."""

from __future__ import annotations

import torch

from helix_kernel.errors import ArgumentError


def choose_device(name: str) -> torch.device:
    """Return a device that works here.

    Args:
        name: ``"auto"`` for the accelerator if there is one, else the CPU; or a device's name.

    Raises:
        ArgumentError: There is no such device here.
    """
    if name == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        return torch.device("cpu") if found is None else found
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises the latter where CUDA is not compiled in
        reason = str(error).splitlines()[0]
        raise ArgumentError(f"trainer.device is {name!r}, which is not available here: {reason}") from error
    return device
