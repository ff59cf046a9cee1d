"""What a checkpoint tells of the run that made it, besides its state."""

from __future__ import annotations

import platform
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import torch

import helix_train
from helix_kernel.hooks import API_VERSION

if TYPE_CHECKING:
    from helix_kernel import Config
    from helix_kernel.backends import Selection


def provenance(config: Config, ops: Selection, data_fingerprint: str, device: torch.device) -> dict[str, Any]:
    """Return what decides how a run goes: config, components and their source, ops, data, environment."""
    return {
        "config": config.to_dict(),
        "components": config.versions(),
        "lock": config.record.as_dict(),
        "api": API_VERSION,
        "ops": ops.as_dict(),
        "data_fingerprint": data_fingerprint,
        "environment": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "helix-train": helix_train.__version__,
            "device": str(device),
            "threads": torch.get_num_threads(),
        },
    }


class WallTime:
    """The seconds that a run has taken, those before it was resumed among them.

    Args:
        before: What the checkpoint says that is gone on from; 0 for a new run.
    """

    def __init__(self, before: float) -> None:
        self.before = before
        self._begun = time.monotonic()

    def describe(self) -> dict[str, Any]:
        """Return the attributes ``wall_time``, in seconds, and ``saved_at``, in UTC."""
        return {
            "wall_time": self.before + time.monotonic() - self._begun,
            "saved_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
